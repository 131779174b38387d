package election

import (
	"fmt"
	"slices"
	"strings"

	"corax/control/api/v1beta1"
)

// confirm takes from the copies of active entries the keys that another Gateway's
// entry has, unless the status has them already: agents believe the copies, so that
// nobody can take the key of another node by writing it into its own entry. It
// returns what to say about it.
func (d Domain) confirm(copies, was []v1beta1.Endpoint) string {
	if d.Holder == nil {
		return ""
	}
	var b strings.Builder
	for i := range copies {
		e := &copies[i]
		now, next := keys(e)
		for i, k := range []string{now, next} {
			if k == "" || hadKey(was, e.NodeName, k) {
				continue
			}
			if holder := d.Holder(e.NodeName, k); holder != "" {
				name := []string{v1beta1.ConfigPublicKey, v1beta1.ConfigNextPublicKey}[i]
				delete(e.Config, name)
				fmt.Fprintf(&b, "; %s of node %s is not confirmed, because %s has it too", name, e.NodeName, holder)
			}
		}
	}
	return clip(b.String())
}

// hadKey reports whether a copy of a node's entry has a key, as its own or as its
// next one.
func hadKey(copies []v1beta1.Endpoint, node, k string) bool {
	for i := range copies {
		e := &copies[i]
		if now, next := keys(e); e.NodeName == node && (now == k || next == k) {
			return true
		}
	}
	return false
}

// keys returns the key of an entry and the next one, in the form that every key has
// one of; empty: none that is usable.
func keys(e *v1beta1.Endpoint) (now, next string) {
	if k, err := e.PublicKey(); err == nil && !k.IsZero() {
		now = k.String()
	}
	if k, err := e.NextPublicKey(); err == nil && !k.IsZero() {
		next = k.String()
	}
	return now, next
}

// Keys returns the keys in the entries of a Gateway, each as Holder gets it.
func Keys(entries []v1beta1.Endpoint) []string {
	var all []string
	for i := range entries {
		now, next := keys(&entries[i])
		for _, k := range []string{now, next} {
			if k != "" && !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	return all
}

// HasKey reports whether a key is in an entry.
func HasKey(e *v1beta1.Endpoint, key string) bool {
	now, next := keys(e)
	return key == now || key == next
}

// Unconfirmed reports whether an active entry of g has a key that status does not.
func Unconfirmed(spec, status []v1beta1.Endpoint) bool {
	for i := range status {
		for j := range spec {
			a, e := &status[i], &spec[j]
			if a.NodeName == e.NodeName && a.Type == e.Type &&
				(a.Config[v1beta1.ConfigPublicKey] != e.Config[v1beta1.ConfigPublicKey] ||
					a.Config[v1beta1.ConfigNextPublicKey] != e.Config[v1beta1.ConfigNextPublicKey]) {
				return true
			}
		}
	}
	return false
}
