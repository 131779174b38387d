package gateway

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// MergePatch returns a JSON merge patch (RFC 7386) that makes was become is; nil
// when they are equal. Fields that these types do not know are left alone, except
// within lists: a merge patch replaces a list as a whole. When it does so, it
// carries was's resourceVersion, so that the API server refuses it (409) if
// somebody changed the object in between. To change the endpoints without that,
// use [Op].
//
// Both must have come from the same object, and name, labels, annotations,
// finalizers, spec and status are compared. Status goes to the subresource: use
// [SpecPatch] or [StatusPatch] to get one half.
func MergePatch(was, is *Gateway) ([]byte, error) {
	a, err := json.Marshal(was)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	b, err := json.Marshal(is)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	patch, err := jsonpatch.CreateMergePatch(a, b)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	var doc map[string]any
	if err := json.Unmarshal(patch, &doc); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	var before map[string]any
	if err := json.Unmarshal(a, &before); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if !replacesList(doc, before) || was.ResourceVersion == "" {
		return patch, nil
	}
	meta, _ := doc["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		doc["metadata"] = meta
	}
	meta["resourceVersion"] = was.ResourceVersion
	return json.Marshal(doc)
}

// SpecPatch is MergePatch without the status.
func SpecPatch(was, is *Gateway) ([]byte, error) {
	half := *is
	half.Status = was.Status
	return MergePatch(was, &half)
}

// StatusPatch is MergePatch of the status alone.
func StatusPatch(was, is *Gateway) ([]byte, error) {
	half := *was
	half.Status = is.Status
	return MergePatch(was, &half)
}

// replacesList reports whether a patch writes a list, or removes one of was.
func replacesList(patch, was any) bool {
	switch p := patch.(type) {
	case []any:
		return true
	case nil:
		return holdsList(was)
	case map[string]any:
		w, _ := was.(map[string]any)
		for name, x := range p {
			if replacesList(x, w[name]) {
				return true
			}
		}
	}
	return false
}

func holdsList(v any) bool {
	switch v := v.(type) {
	case []any:
		return true
	case map[string]any:
		for _, x := range v {
			if holdsList(x) {
				return true
			}
		}
	}
	return false
}

// Op is one step of a JSON patch (RFC 6902). A test of the value null is also met
// by a field that is absent.
type Op struct {
	Op    string `json:"op"` // "test", "add", "replace" or "remove"
	Path  string `json:"path"`
	Value any    `json:"value"` // also sent when it is nil
}

// MarshalJSON leaves out the value of a removal.
func (o Op) MarshalJSON() ([]byte, error) {
	if o.Op == "remove" {
		return json.Marshal(map[string]string{"op": o.Op, "path": o.Path})
	}
	type plain Op
	return json.Marshal(plain(o))
}

// Pointer makes a JSON pointer (RFC 6901) of field names and list indexes.
func Pointer(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteByte('/')
		switch p := p.(type) {
		case int:
			b.WriteString(strconv.Itoa(p))
		default:
			b.WriteString(pointerEscape.Replace(fmt.Sprint(p)))
		}
	}
	return b.String()
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")
