package exposure

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"corax/control"
	"corax/control/api/v1beta1"
)

// SettingsName is the ConfigMap that holds the settings.
const SettingsName = "raven-cfg"

// Keys of the settings. Only the two of the balancer are ever written.
const (
	keyTunnel     = "enable-l3-tunnel"
	keyProxy      = "enable-l7-proxy"
	keyAllow      = "acl-entry"
	keyACL        = "acl-id"
	keyEIP        = "eip-ip"
	keyBalancer   = "loadbalancer-id"
	keyBalancerIP = "loadbalancer-ip"
)

// Settings is what raven-cfg says.
type Settings struct {
	// Tunnel and Proxy are the switches of the two modes.
	Tunnel, Proxy bool
	// Allow are the only sources that may come; none: everybody. When the list
	// cannot be read, Refused says why, and what was in force stays.
	Allow   []netip.Prefix
	Refused string
	// Warnings are about values that are used all the same, or left out alone.
	Warnings []string
	// ACL is the access control list that Alibaba Cloud's balancers use; empty:
	// none.
	ACL string
	// EIP is the public address that is bound to the balancer of BalancerIP; zero
	// when there is none.
	EIP netip.Addr
	// Balancer is the id of a balancer, and BalancerIP its address. OwnBalancer
	// and OwnBalancerIP say that our controller wrote them.
	Balancer, BalancerIP       string
	OwnBalancer, OwnBalancerIP bool
}

// ParseSettings reads raven-cfg; nil means that there is none. A switch is on
// unless it says "false", as agents read it.
func ParseSettings(cm *corev1.ConfigMap) Settings {
	if cm == nil {
		return Settings{Tunnel: true, Proxy: true}
	}
	get := func(key string) string { return strings.TrimSpace(cm.Data[key]) }
	s := Settings{ACL: get(keyACL), Balancer: get(keyBalancer), BalancerIP: get(keyBalancerIP)}
	own := readRecord(cm)
	s.OwnBalancer = s.Balancer != "" && own[keyBalancer] == s.Balancer
	s.OwnBalancerIP = s.BalancerIP != "" && own[keyBalancerIP] == s.BalancerIP
	var err error
	if s.Allow, s.Warnings, err = control.ParseAllowList(cm.Data[keyAllow]); err != nil {
		s.Refused = strings.TrimPrefix(err.Error(), "control: ")
	}
	s.Tunnel, s.Proxy = s.read(keyTunnel, get(keyTunnel)), s.read(keyProxy, get(keyProxy))
	if e := get(keyEIP); e != "" {
		if s.EIP, err = v1beta1.ParseAddr(e); err != nil {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %v", keyEIP, err))
		}
	}
	return s
}

func (s *Settings) read(key, value string) bool {
	switch v := strings.ToLower(value); v {
	case "", "true":
		return true
	case "false":
		return false
	default:
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %.100q is neither true nor false", key, value))
		return true
	}
}

// shared returns the id of a balancer that somebody gave for all our Services;
// empty when there is none. The balancer that a cloud made for one of our Services
// goes with it, so it is never given to another, even when the note that the id is
// ours was lost.
func (s *Settings) shared(services []corev1.Service) string {
	if s.OwnBalancer {
		return ""
	}
	for i := range services {
		if v := &services[i]; v.Labels[labelBalancerID] == s.Balancer && v.Annotations[annotationBalancerID] != s.Balancer {
			return ""
		}
	}
	return s.Balancer
}
