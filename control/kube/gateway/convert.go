package gateway

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"corax/control/api/v1beta1"
)

// Plain returns g as a plain Gateway, which the pure functions of package control
// take. It shares maps and lists with g.
func (g *Gateway) Plain() v1beta1.Gateway {
	return v1beta1.Gateway{
		TypeMeta: v1beta1.TypeMeta{APIVersion: v1beta1.APIVersion, Kind: v1beta1.Kind},
		Metadata: v1beta1.ObjectMeta{
			Name: g.Name, Labels: g.Labels, Annotations: g.Annotations, UID: string(g.UID),
			ResourceVersion: g.ResourceVersion, Generation: g.Generation,
		},
		Spec:   g.Spec,
		Status: g.Status.GatewayStatus,
	}
}

// FromPlain returns a plain Gateway in its Kubernetes form. It shares maps and
// lists with p.
func FromPlain(p v1beta1.Gateway) *Gateway {
	return &Gateway{
		TypeMeta: metav1.TypeMeta{APIVersion: v1beta1.APIVersion, Kind: v1beta1.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Metadata.Name, Labels: p.Metadata.Labels, Annotations: p.Metadata.Annotations,
			UID: types.UID(p.Metadata.UID), ResourceVersion: p.Metadata.ResourceVersion, Generation: p.Metadata.Generation,
		},
		Spec:   p.Spec,
		Status: Status{GatewayStatus: p.Status},
	}
}
