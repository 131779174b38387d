package gateway

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"corax/control/api/v1beta1"
)

var (
	_ runtime.Object = (*Gateway)(nil)
	_ runtime.Object = (*GatewayList)(nil)
	_ metav1.Object  = (*Gateway)(nil)
)

// Gateway is one network domain, as the API server has it. It is cluster scoped.
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   v1beta1.GatewaySpec `json:"spec,omitempty"`
	Status Status              `json:"status,omitempty"`
}

// GatewayList is what the API server answers to a list request.
type GatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Gateway `json:"items"`
}

// Status is Raven's status and what our controller adds to it. Agents read only
// Raven's part.
type Status struct {
	v1beta1.GatewayStatus `json:",inline"`

	// Conditions are a map by type.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Summary is for people; nil when nobody wrote it.
	Summary *Summary `json:"summary,omitempty"`
}

// Summary holds what the columns of kubectl get show, since a column shows only
// the first element of a list.
type Summary struct {
	// Active names the active gateway nodes, by commas.
	Active string `json:"active,omitempty"`
	// Expose is how the Gateway is exposed, and where.
	Expose string `json:"expose,omitempty"`
	// Nodes is the number of nodes of the domain.
	Nodes int `json:"nodes"`
	// Ready is the number of eligible candidates among all, "2/3".
	Ready string `json:"ready,omitempty"`
}

// ConditionReady is the type of the condition that says whether the domain's
// traffic is carried.
const ConditionReady = "Ready"

// ConditionBound is the type of the condition that is False where nothing keeps a
// node from writing another's endpoint entry. Elsewhere it is absent.
const ConditionBound = "EntriesBound"
