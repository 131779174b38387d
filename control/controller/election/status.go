package election

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// Mode is one type of endpoint in a Gateway: what is wanted, and what came out.
type Mode struct {
	// Type is v1beta1.TypeTunnel or v1beta1.TypeProxy.
	Type string
	// Enabled is the switch for the whole cluster.
	Enabled bool
	// Replicas is what the Gateway wants; zero turns the mode off for it.
	Replicas   int
	Candidates []Candidate
	Seats      Seats
}

func (m Mode) on() bool { return m.Enabled && m.Replicas > 0 }

// Replicas returns how many endpoints of a type shall be active: 1 when the Gateway
// does not say, or says something impossible, as agents read it.
func Replicas(spec *v1beta1.GatewaySpec, kind string) int {
	n := 1
	switch {
	case kind == v1beta1.TypeTunnel && spec.TunnelConfig != nil:
		n = spec.TunnelConfig.Replicas
	case kind == v1beta1.TypeProxy && spec.ProxyConfig != nil:
		n = spec.ProxyConfig.Replicas
	}
	if n < 0 || n > v1beta1.MaxReplicas {
		return 1
	}
	return n
}

// Vote elects for one type of g.
func (d Domain) Vote(g *v1beta1.Gateway, kind string, enabled bool) Mode {
	m := Mode{Type: kind, Enabled: enabled, Replicas: Replicas(&g.Spec, kind), Candidates: d.Judge(kind)}
	lasting := 0
	for _, c := range m.Candidates {
		if !d.Passing[Entry{kind, c.Node}] {
			lasting++
		}
	}
	// Who passes must not stay because it is active, and be active because it stays.
	seats := min(m.Replicas, max(1, lasting))
	if !enabled {
		seats = 0
	}
	m.Seats = Elect(Active(g.Status.ActiveEndpoints, kind), m.Candidates, seats)
	return m
}

// Active returns the nodes of one type in a list of active endpoints, each once.
func Active(list []v1beta1.Endpoint, kind string) []string {
	var out []string
	for i := range list {
		if list[i].Type == kind && !slices.Contains(out, list[i].NodeName) {
			out = append(out, list[i].NodeName)
		}
	}
	return out
}

// Status returns the status that g should have. It shares no memory with g, keeps
// conditions of others, and is equal to g's when nothing changed; now is the time
// of a transition.
func Status(g *gateway.Gateway, d Domain, modes []Mode, now metav1.Time) gateway.Status {
	s := *g.Status.DeepCopy()
	p := g.Plain()
	extra, problem := ExtraCIDRs(&p)
	s.ActiveEndpoints = active(g.Spec.Endpoints, modes)
	copied := d.confirm(s.ActiveEndpoints, g.Status.ActiveEndpoints)
	s.Nodes = infos(d.Nodes, extra, extraNode(modes))
	s.Summary = summary(&p, s.ActiveEndpoints, d, modes)
	c := ready(d, modes)
	if problem != nil {
		c.Message += fmt.Sprintf("; annotation %s: %v", v1beta1.AnnotationExtraCIDRs, problem)
	}
	c.Message += copied
	c.LastTransitionTime = now
	meta.SetStatusCondition(&s.Conditions, c)
	if d.Unbound {
		c := unbound()
		c.LastTransitionTime = now
		meta.SetStatusCondition(&s.Conditions, c)
	} else {
		meta.RemoveStatusCondition(&s.Conditions, gateway.ConditionBound)
	}
	return s
}

// active copies the entries in force and adds the flags that Raven's controller
// sets.
func active(entries []v1beta1.Endpoint, modes []Mode) []v1beta1.Endpoint {
	var out []v1beta1.Endpoint
	for _, m := range modes {
		flag := v1beta1.ConfigEnableTunnel
		if m.Type == v1beta1.TypeProxy {
			flag = v1beta1.ConfigEnableProxy
		}
		for _, name := range m.Seats.Active {
			i := slices.IndexFunc(entries, func(e v1beta1.Endpoint) bool { return e.Type == m.Type && e.NodeName == name })
			if i < 0 {
				continue
			}
			e := entries[i]
			config := make(map[string]string, len(e.Config)+1)
			maps.Copy(config, e.Config)
			config[flag] = strconv.FormatBool(m.Enabled)
			e.Config = config
			out = append(out, e)
		}
	}
	sortEndpoints(out)
	return out
}

// infos lists the nodes with their subnets; the one named gets extra ones.
func infos(nodes []Node, extra []string, named string) []v1beta1.NodeInfo {
	var out []v1beta1.NodeInfo
	for i := range nodes {
		n := &nodes[i]
		info := v1beta1.NodeInfo{NodeName: n.Name, PrivateIP: n.PrivateIP, Subnets: append([]string{}, n.Subnets...)}
		if n.Name == named {
			for _, c := range extra {
				if !slices.Contains(info.Subnets, c) {
					info.Subnets = append(info.Subnets, c)
				}
			}
		}
		out = append(out, info)
	}
	return out
}

// ExtraCIDRs returns the CIDRs of the annotation that can be used, and what is
// wrong with the others.
func ExtraCIDRs(g *v1beta1.Gateway) ([]string, error) {
	list := g.Metadata.Annotations[v1beta1.AnnotationExtraCIDRs]
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var out, bad []string
	for f := range strings.SplitSeq(list, ",") {
		p, err := v1beta1.ParseSubnet(strings.TrimSpace(f))
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case !slices.Contains(out, p.String()):
			out = append(out, p.String())
		}
	}
	if len(bad) > 0 {
		return out, fmt.Errorf("%s", clip(strings.Join(bad, "; ")))
	}
	return out, nil
}

// extraNode is the gateway node that gets the extra CIDRs: the first one that
// carries the tunnel and stays.
func extraNode(modes []Mode) string {
	for _, m := range modes {
		if keeps := m.Seats.Keeps(); m.Type == v1beta1.TypeTunnel && len(keeps) > 0 {
			return keeps[0]
		}
	}
	return ""
}

// summary is what the columns of kubectl get show.
func summary(g *v1beta1.Gateway, active []v1beta1.Endpoint, d Domain, modes []Mode) *gateway.Summary {
	eligible, all := map[string]bool{}, map[string]bool{}
	for _, m := range modes {
		for _, c := range m.Candidates {
			all[c.Node] = true
			if c.Eligible {
				eligible[c.Node] = true
			}
		}
	}
	return &gateway.Summary{
		Active: strings.Join(names(active), ","),
		Expose: exposed(g, active),
		Nodes:  len(d.Nodes),
		Ready:  fmt.Sprintf("%d/%d", len(eligible), len(all)),
	}
}

// exposed says how and where the domain is reached first.
func exposed(g *v1beta1.Gateway, active []v1beta1.Endpoint) string {
	var at string
	for i := range active {
		e := &active[i]
		host := cmp.Or(e.PublicIP, e.Config[v1beta1.ConfigPublicHost])
		if e.Type == v1beta1.TypeTunnel && host != "" && !e.UnderNAT {
			at = host
			break
		}
	}
	return strings.TrimSpace(g.Spec.ExposeType + " " + at)
}
