package gateway

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"corax/control/api/v1beta1"
)

// Resource is the plural name in URLs and rules.
const Resource = "gateways"

// GroupVersion is raven.openyurt.io/v1beta1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: v1beta1.Group, Version: v1beta1.Version}
}

// GroupVersionKind is that of one Gateway.
func GroupVersionKind() schema.GroupVersionKind { return GroupVersion().WithKind(v1beta1.Kind) }

// AddToScheme makes Gateway and GatewayList known to s.
func AddToScheme(s *runtime.Scheme) error {
	gv := GroupVersion()
	s.AddKnownTypes(gv, &Gateway{}, &GatewayList{})
	metav1.AddToGroupVersion(s, gv)
	return nil
}
