package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"corax/control/api/v1beta1"
)

// Survey is what the cluster says of how a node is reached by name.
type Survey struct {
	// Node is the node of that name or Hostname address; empty: there is none.
	Node     string
	Hostname string
	// Gateway is that of the node, and Active are its active endpoints of either
	// type.
	Gateway string
	Active  []string
	// Fronts are the active proxy endpoints of exposed Gateways.
	Fronts []string
	// Switch is what raven-cfg says of proxy mode; empty: nothing.
	Switch string
	// Leads is where ConfigMap edge-tunnel-nodes leads the Hostname, or the node's
	// name; zero: it does not have it.
	Leads netip.Addr
	// Service is the address of the proxy's Service, Ports are its ports, Plain those
	// of them that lead to the fronts' plain HTTP, and Ready how many fronts are behind
	// it; zero: there is none.
	Service      netip.Addr
	Ports, Plain []uint16
	Ready        int
	// Unread is what could not be read, and why.
	Unread []string
}

// proxyService is the name of the proxy's Service.
const proxyService = "x-raven-proxy-internal-svc"

// NewSurvey looks a node up in the cluster that cfg names. What cannot be read is in
// Unread; the error says that the cluster cannot be asked at all. Of cfg only
// Kubeconfig, Namespace and UserAgent count.
func NewSurvey(ctx context.Context, cfg Config, name string) (Survey, error) {
	cfg.fill()
	rc, err := restConfig(cfg.Kubeconfig)
	if err != nil {
		return Survey{}, fmt.Errorf("kube: %w", err)
	}
	api, err := newServer(cfg, rc, newLink(rc.Host, cfg.Log, nil))
	if err != nil {
		return Survey{}, fmt.Errorf("kube: %w", err)
	}
	var s Survey
	if err := api.surveyNode(ctx, &s, name); err != nil {
		return s, fmt.Errorf("kube: read the nodes: %w", err)
	}
	for _, part := range []struct {
		what string
		read func(context.Context, *Survey) error
	}{
		{"gateways", api.surveyGateways},
		{"configmap/" + settingsName, api.surveySwitch},
		{"configmap/" + hostsName, api.surveyHosts},
		{"service/" + proxyService, api.surveyService},
		{"endpointslices of " + proxyService, api.surveySlices},
	} {
		if err := part.read(ctx, &s); err != nil {
			s.Unread = append(s.Unread, part.what+": "+clip(err.Error()))
		}
	}
	return s, nil
}

func (s *server) surveyNode(ctx context.Context, out *Survey, name string) error {
	lw := &source{
		client: s.core, params: s.params, resource: "nodes", page: nodePage, tell: func(error) {},
		list: func() runtime.Object { return &nodeList{} },
	}
	all, err := lw.ListWithContext(ctx, metav1.ListOptions{})
	list, ok := all.(*nodeList)
	if err != nil || !ok {
		return err
	}
	hosts := make(map[string]string, len(list.Items))
	for _, n := range list.Items {
		hosts[n.Name] = n.hostname
	}
	out.Node = indexNodes(hosts)[strings.ToLower(name)]
	out.Hostname = hosts[out.Node]
	if out.Node == "" {
		return nil
	}
	raw, err := s.core.Get().Resource("nodes").Name(out.Node).Do(ctx).Raw()
	if err != nil {
		return err
	}
	var doc struct {
		Metadata struct{ Labels map[string]string }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	out.Gateway = doc.Metadata.Labels[v1beta1.LabelGateway]
	return nil
}

func (s *server) surveyGateways(ctx context.Context, out *Survey) error {
	var list objectList
	if err := s.gateways.Get().Resource("gateways").Do(ctx).Into(&list); err != nil {
		return err
	}
	for _, o := range list.Items {
		g := &o.gateway
		for _, e := range g.Status.ActiveEndpoints {
			if g.Metadata.Name == out.Gateway && !slices.Contains(out.Active, e.NodeName) {
				out.Active = append(out.Active, e.NodeName)
			}
			if g.Exposed() && e.Type == v1beta1.TypeProxy {
				out.Fronts = append(out.Fronts, e.NodeName)
			}
		}
	}
	return nil
}

func (s *server) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	m := &corev1.ConfigMap{}
	err := s.core.Get().Namespace(s.namespace).Resource("configmaps").Name(name).Do(ctx).Into(m)
	return m, err
}

func (s *server) surveySwitch(ctx context.Context, out *Survey) error {
	m, err := s.configMap(ctx, settingsName)
	out.Switch = m.Data[keyProxy]
	return err
}

func (s *server) surveyHosts(ctx context.Context, out *Survey) error {
	m, err := s.configMap(ctx, hostsName)
	for line := range strings.Lines(m.Data[hostsKey]) {
		f := strings.Fields(line)
		named := func(n string) bool { return strings.EqualFold(n, out.Hostname) || strings.EqualFold(n, out.Node) }
		if len(f) > 1 && out.Node != "" && slices.ContainsFunc(f[1:], named) {
			out.Leads, _ = netip.ParseAddr(f[0]) // zero: not an address
		}
	}
	return err
}

func (s *server) surveyService(ctx context.Context, out *Survey) error {
	svc := &corev1.Service{}
	if err := s.core.Get().Namespace(s.namespace).Resource("services").Name(proxyService).Do(ctx).Into(svc); err != nil {
		return err
	}
	out.Service, _ = netip.ParseAddr(svc.Spec.ClusterIP) // zero: none
	for _, p := range svc.Spec.Ports {
		out.Ports = append(out.Ports, uint16(p.Port))
		if strings.HasPrefix(p.Name, "http-") { // so the controllers name them
			out.Plain = append(out.Plain, uint16(p.Port))
		}
	}
	return nil
}

func (s *server) surveySlices(ctx context.Context, out *Survey) error {
	raw, err := s.core.Get().AbsPath("/apis/discovery.k8s.io/v1/namespaces/"+s.namespace+"/endpointslices").
		Param("labelSelector", "kubernetes.io/service-name="+proxyService).Do(ctx).Raw()
	if err != nil {
		return err
	}
	var doc struct {
		Items []struct {
			Endpoints []struct {
				Addresses  []string
				Conditions struct{ Ready *bool }
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	for _, i := range doc.Items {
		for _, e := range i.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				out.Ready += len(e.Addresses)
			}
		}
	}
	return nil
}
