package kube

import (
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"

	"corax/control"
	"corax/control/api/v1beta1"
)

var (
	_ runtime.Object   = (*object)(nil)
	_ runtime.Object   = (*objectList)(nil)
	_ metav1.Object    = (*object)(nil)
	_ json.Unmarshaler = (*object)(nil)
)

// object is a Gateway as it comes from the API server. Reading it never fails: a
// list must not be lost because one object in it has a field of another type than
// ours. Of its metadata only what a reflector wants is kept.
type object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	gateway  v1beta1.Gateway
	problems []control.Problem
}

// objectList is an answer to a list request.
type objectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []*object `json:"items"`
}

// UnmarshalJSON reads what can be used of a Gateway, and notes what cannot.
func (o *object) UnmarshalJSON(data []byte) error {
	var g v1beta1.Gateway
	// A field of another type is skipped, and the rest is read.
	err := kjson.UnmarshalCaseSensitivePreserveInts(data, &g)
	*o = object{}
	o.TypeMeta = metav1.TypeMeta{APIVersion: g.APIVersion, Kind: g.Kind}
	o.Name, o.ResourceVersion = g.Metadata.Name, g.Metadata.ResourceVersion
	// What changes with every write, and nobody reads, must not make two
	// snapshots differ.
	g.Metadata.ResourceVersion, g.Metadata.Generation = "", 0
	g.TypeMeta = v1beta1.TypeMeta{}
	o.gateway = g
	if o.Name == "" {
		return nil // a bookmark, which has nothing but its version
	}
	o.problems = control.Check(&o.gateway)
	if err != nil {
		o.problems = append(o.problems, problemOf(g.Metadata.Name, err))
	}
	return nil
}

// problemOf makes a problem of what the decoder said of a Gateway.
func problemOf(name string, err error) control.Problem {
	p := control.Problem{Object: control.GatewayObject(name), Message: err.Error()}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		p.Field, p.Message = wrong.Field, fmt.Sprintf("%v is wanted, not a JSON %s", wrong.Type, wrong.Value)
	}
	return p
}

// DeepCopyObject returns a copy that shares no memory that either writes to.
func (o *object) DeepCopyObject() runtime.Object {
	c := *o
	return &c
}

// DeepCopyObject returns a copy of the list; its items are shared, and never
// changed.
func (l *objectList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]*object(nil), l.Items...)
	return &c
}
