package controller

import (
	"errors"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"corax/control/kube/gateway"
)

// newScheme knows the types that the reconcilers read and write; NodePools and
// Calico's block affinities are unstructured.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(
		corev1.AddToScheme(s), coordinationv1.AddToScheme(s), discoveryv1.AddToScheme(s), certificatesv1.AddToScheme(s),
		gateway.AddToScheme(s),
	)
}
