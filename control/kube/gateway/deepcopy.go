package gateway

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"corax/control/api/v1beta1"
)

// DeepCopyInto writes a copy of g to out that shares no memory with it.
func (g *Gateway) DeepCopyInto(out *Gateway) {
	out.TypeMeta = g.TypeMeta
	g.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec = CopySpec(g.Spec)
	g.Status.DeepCopyInto(&out.Status)
}

// DeepCopy returns a copy that shares no memory with g; of nil, nil.
func (g *Gateway) DeepCopy() *Gateway {
	if g == nil {
		return nil
	}
	out := new(Gateway)
	g.DeepCopyInto(out)
	return out
}

// DeepCopyObject returns DeepCopy as an object.
func (g *Gateway) DeepCopyObject() runtime.Object {
	if g == nil {
		return nil
	}
	return g.DeepCopy()
}

// DeepCopyInto writes a copy of l to out that shares no memory with it.
func (l *GatewayList) DeepCopyInto(out *GatewayList) {
	out.TypeMeta = l.TypeMeta
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = nil
	if l.Items != nil {
		out.Items = make([]Gateway, len(l.Items))
		for i := range l.Items {
			l.Items[i].DeepCopyInto(&out.Items[i])
		}
	}
}

// DeepCopy returns a copy that shares no memory with l; of nil, nil.
func (l *GatewayList) DeepCopy() *GatewayList {
	if l == nil {
		return nil
	}
	out := new(GatewayList)
	l.DeepCopyInto(out)
	return out
}

// DeepCopyObject returns DeepCopy as an object.
func (l *GatewayList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	return l.DeepCopy()
}

// DeepCopyInto writes a copy of s to out that shares no memory with it.
func (s *Status) DeepCopyInto(out *Status) {
	out.GatewayStatus = CopyStatus(s.GatewayStatus)
	out.Conditions = nil
	if s.Conditions != nil {
		out.Conditions = make([]metav1.Condition, len(s.Conditions))
		for i := range s.Conditions {
			s.Conditions[i].DeepCopyInto(&out.Conditions[i])
		}
	}
	out.Summary = nil
	if s.Summary != nil {
		summary := *s.Summary
		out.Summary = &summary
	}
}

// DeepCopy returns a copy that shares no memory with s; of nil, nil.
func (s *Status) DeepCopy() *Status {
	if s == nil {
		return nil
	}
	out := new(Status)
	s.DeepCopyInto(out)
	return out
}

// CopySpec returns a copy of a spec that shares no memory with it.
func CopySpec(s v1beta1.GatewaySpec) v1beta1.GatewaySpec {
	if s.NodeSelector != nil {
		n := *s.NodeSelector
		n.MatchLabels = maps.Clone(n.MatchLabels)
		n.MatchExpressions = slices.Clone(n.MatchExpressions)
		for i := range n.MatchExpressions {
			n.MatchExpressions[i].Values = slices.Clone(n.MatchExpressions[i].Values)
		}
		s.NodeSelector = &n
	}
	if s.ProxyConfig != nil {
		c := *s.ProxyConfig
		s.ProxyConfig = &c
	}
	if s.TunnelConfig != nil {
		c := *s.TunnelConfig
		s.TunnelConfig = &c
	}
	s.Endpoints = CopyEndpoints(s.Endpoints)
	return s
}

// CopyStatus returns a copy of Raven's part of a status that shares no memory with
// it.
func CopyStatus(s v1beta1.GatewayStatus) v1beta1.GatewayStatus {
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i].Subnets = slices.Clone(s.Nodes[i].Subnets)
	}
	s.ActiveEndpoints = CopyEndpoints(s.ActiveEndpoints)
	return s
}

// CopyEndpoints returns a copy of a list of endpoints that shares no memory with
// it; of nil, nil.
func CopyEndpoints(list []v1beta1.Endpoint) []v1beta1.Endpoint {
	list = slices.Clone(list)
	for i := range list {
		list[i].Config = maps.Clone(list[i].Config)
	}
	return list
}
