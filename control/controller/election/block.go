package election

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/control/api/v1beta1"
)

// Block is a subnet that Calico gave to a node; the zero value is none.
type Block struct{ Node, CIDR string }

// ReadBlock reads a BlockAffinity of crd.projectcalico.org/v1. One that is not
// confirmed, is being deleted, or says something that cannot be, is none.
func ReadBlock(object map[string]any) Block {
	get := func(field string) string {
		s, _, _ := unstructured.NestedString(object, "spec", field)
		return s
	}
	deleted := get("deleted") == "true"
	if b, ok, err := unstructured.NestedBool(object, "spec", "deleted"); err == nil && ok {
		deleted = b
	}
	p, err := v1beta1.ParseSubnet(get("cidr"))
	if deleted || get("state") != "confirmed" || get("node") == "" || err != nil {
		return Block{}
	}
	return Block{Node: get("node"), CIDR: p.String()}
}
