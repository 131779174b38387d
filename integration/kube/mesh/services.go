//go:build linux

package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
	"corax/integration/lab"
)

// steer makes the API server find nodes by name as proxy mode wants it: by the
// hosts file that the agent of the control plane's node keeps.
func (w *World) steer(t cluster.T) {
	t.Helper()
	w.opt.Control.Hosts = filepath.Join(w.Control.Dir(), "state", "hosts")
	err := os.MkdirAll(filepath.Dir(w.opt.Control.Hosts), 0o700)
	if err == nil {
		err = os.WriteFile(w.opt.Control.Hosts, nil, 0o644)
	}
	if err != nil {
		t.Fatalf("mesh: %v", err)
	}
}

// FollowServices lays the cluster's Services on nodes as kube-proxy does, and
// follows them until the test ends: IPv4 and TCP.
func (w *World) FollowServices(t cluster.T, nodes ...*lab.Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		var laid []lab.Service
		for {
			services, err := w.services(ctx)
			if err == nil && !reflect.DeepEqual(services, laid) {
				for _, n := range nodes {
					if err := n.SetServices(services...); err != nil {
						t.Errorf("mesh: %v", err)
						return
					}
				}
				laid = services
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// services are those of the cluster, as the API server lists them.
func (w *World) services(ctx context.Context) ([]lab.Service, error) {
	list, err := w.Cluster.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	slices, err := w.Cluster.Client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var all []lab.Service
	for i := range list.Items {
		s := &list.Items[i]
		ip, err := netip.ParseAddr(s.Spec.ClusterIP)
		if err != nil || !ip.Is4() {
			continue
		}
		for _, p := range s.Spec.Ports {
			if b := backends(s, p, slices.Items); len(b) > 0 {
				all = append(all, lab.Service{IP: ip, Port: uint16(p.Port), Protocol: lab.TCP, Backends: b})
			}
		}
	}
	return all, nil
}

// backends are the ready endpoints of a port.
func backends(s *corev1.Service, p corev1.ServicePort, slices []discoveryv1.EndpointSlice) []netip.AddrPort {
	var all []netip.AddrPort
	for _, slice := range slices {
		if slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name || slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, port := range slice.Ports {
			if port.Name == nil || *port.Name != p.Name || port.Port == nil {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, a := range e.Addresses {
					if ip, err := netip.ParseAddr(a); err == nil {
						all = append(all, netip.AddrPortFrom(ip, uint16(*port.Port)))
					}
				}
			}
		}
	}
	return all
}

// Front returns the address of the Service of the proxy's fronts.
func (w *World) Front(ctx context.Context) (netip.Addr, error) {
	s, err := w.Cluster.Client.CoreV1().Services("kube-system").Get(ctx, "x-raven-proxy-internal-svc", metav1.GetOptions{})
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil {
		err = fmt.Errorf("the fronts' Service has address %q", s.Spec.ClusterIP)
	}
	return ip, err
}
