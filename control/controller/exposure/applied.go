package exposure

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"corax/control/api/v1beta1"
)

// applied is what our controller set on a Service. A value that differs from it
// is somebody else's, and so is one that somebody removed.
type applied struct {
	Annotations map[string]string `json:"annotations,omitempty"`
	Ranges      []string          `json:"ranges,omitempty"`
	// Worked is set once the cloud gave the Service an address.
	Worked bool `json:"worked,omitempty"`
}

// readApplied reads the note on a Service; nil has none. A note that cannot be
// read counts as none: then everything there is somebody else's.
func readApplied(s *corev1.Service) applied {
	a := applied{}
	if s == nil {
		return a
	}
	if json.Unmarshal([]byte(s.Annotations[v1beta1.AnnotationApplied]), &a) != nil {
		return applied{}
	}
	return a
}

// String is the form of the note.
func (a *applied) String() string {
	b, err := json.Marshal(a)
	if err != nil { // impossible: strings only
		return ""
	}
	return string(b)
}

// annotation sets one annotation of s, or removes it when value is empty, unless
// it is somebody else's.
func (a *applied) annotation(s *corev1.Service, key, value string) {
	ours, noted := a.Annotations[key]
	now, present := s.Annotations[key]
	if present != noted || now != ours {
		return
	}
	if value == "" {
		delete(s.Annotations, key)
		delete(a.Annotations, key)
		return
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	if a.Annotations == nil {
		a.Annotations = map[string]string{}
	}
	s.Annotations[key], a.Annotations[key] = value, value
}

// ranges sets the sources that the balancer lets in, unless somebody else did.
func (a *applied) ranges(s *corev1.Service, list []string) {
	if !slices.Equal(s.Spec.LoadBalancerSourceRanges, a.Ranges) {
		return
	}
	s.Spec.LoadBalancerSourceRanges, a.Ranges = list, list
}

// sameService reports whether the API server would see no difference.
func sameService(a, b *corev1.Service) bool {
	return equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// foreignRanges reports whether somebody else says what sources s lets in.
func foreignRanges(s *corev1.Service) bool {
	return !slices.Equal(s.Spec.LoadBalancerSourceRanges, readApplied(s).Ranges)
}
