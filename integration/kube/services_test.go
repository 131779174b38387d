//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"corax/control"
	"corax/control/kube"
	"corax/integration/kube/cluster"
)

// serviceRights are those that the chart gives with agent.serviceCIDRs, and serviceDocs
// what an endpoint controller would have written.
const (
	serviceRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reads-services}
rules:
- {apiGroups: [""], resources: [services], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reads-services}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads-services}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}]
`
	serviceDocs = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, protocol: UDP, port: 53}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}]
endpoints:
- {addresses: [10.244.1.2], conditions: {ready: true}}
- {addresses: [10.244.1.3], conditions: {ready: false}}
`
	serviceMore = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8081, protocol: TCP}]
endpoints: [{addresses: [10.244.1.4]}]
`
)

// TestServicesOfAgent: with no more rights than the chart gives, an agent knows what is
// behind the address that the API server gave a Service, and follows it.
func TestServicesOfAgent(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	c.ApplyYAML(t, serviceRights)
	c.ApplyYAML(t, serviceDocs)
	out, err := c.Kubectl(t, nil, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	ip, err := netip.ParseAddr(string(out))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.New(kube.Config{
		Kubeconfig: c.Kubeconfig(t, c.UserConfig(t, "reader")), Node: "edge-a-gw", Services: true, Update: func(control.Snapshot) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	leads := func(network string, port uint16, want string) {
		t.Helper()
		cluster.Eventually(t, 30*time.Second, "what is behind it", func(context.Context) error {
			got, err := client.Endpoints(network, netip.AddrPortFrom(ip, port))
			if err == nil && fmt.Sprint(got) != want {
				err = fmt.Errorf("%s %d leads to %v, want %s", network, port, got, want)
			}
			return err
		})
	}
	leads("tcp", 80, "[10.244.1.2:8080]")
	leads("udp", 53, "[10.244.1.2:5353]")
	c.ApplyYAML(t, serviceMore)
	leads("tcp", 80, "[10.244.1.2:8080 10.244.1.4:8081]")
	if _, err := client.Endpoints("tcp", netip.AddrPortFrom(ip, 53)); !errors.Is(err, kube.ErrNoService) {
		t.Error(err)
	}
	if s := client.State(); s.ServicesErr != "" || s.SlicesErr != "" {
		t.Errorf("%+v", s)
	}
}
