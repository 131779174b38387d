package kube

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

// Labels of nodes of the control plane.
const (
	labelControlPlane = "node-role.kubernetes.io/control-plane"
	labelMaster       = "node-role.kubernetes.io/master"
)

var (
	_ runtime.Object   = (*nodeObject)(nil)
	_ runtime.Object   = (*nodeList)(nil)
	_ metav1.Object    = (*nodeObject)(nil)
	_ json.Unmarshaler = (*nodeObject)(nil)
)

// nodeObject is what is read of a Node: how it is called. The rest, some ten
// kilobytes, is not kept.
type nodeObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	hostname     string // its first address of that type
	controlPlane bool
}

// nodeList is an answer to a list request.
type nodeList = objects[*nodeObject]

// UnmarshalJSON reads what is used of a Node. It never fails for what one field
// holds, so that no node keeps the others from being read.
func (n *nodeObject) UnmarshalJSON(data []byte) error {
	var doc struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct {
			Name            string            `json:"name"`
			ResourceVersion string            `json:"resourceVersion"`
			Labels          map[string]string `json:"labels"`
		} `json:"metadata"`
		Status struct {
			Addresses []corev1.NodeAddress `json:"addresses"`
		} `json:"status"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(data, &doc) // fields of another type are skipped
	*n = nodeObject{TypeMeta: doc.TypeMeta}
	n.Name, n.ResourceVersion = doc.Metadata.Name, doc.Metadata.ResourceVersion
	for _, a := range doc.Status.Addresses {
		if a.Type == corev1.NodeHostName && a.Address != "" {
			n.hostname = a.Address
			break
		}
	}
	_, one := doc.Metadata.Labels[labelControlPlane]
	_, other := doc.Metadata.Labels[labelMaster]
	n.controlPlane = one || other
	return nil
}

// DeepCopyObject returns a copy that shares no memory that either writes to.
func (n *nodeObject) DeepCopyObject() runtime.Object {
	c := *n
	return &c
}
