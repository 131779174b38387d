package main

import (
	"testing"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/key"
)

// A claim is passed on when a claimant said it, whoever else did, and not when
// only others pass it on.
func TestFirsthand(t *testing.T) {
	claimant, other := key.Public{9}, key.Public{1}
	peers := []dataplane.Peer{{PublicKey: other, Node: "n1"}, {PublicKey: claimant, Node: "n9"}}
	claim := func(epoch uint64, from key.Public) control.Claim {
		return control.Claim{Gateway: "g", Epoch: epoch, Active: []string{"n9"}, From: from}
	}
	elsewhere := claim(3, claimant)
	elsewhere.Gateway = "h"
	for _, tt := range []struct {
		name  string
		heard []control.Claim
		want  bool
	}{
		{"nobody", nil, false},
		{"the claimant", []control.Claim{claim(3, claimant)}, true},
		{"both", []control.Claim{claim(3, other), claim(3, claimant)}, true},
		{"only passed on", []control.Claim{claim(3, other)}, false},
		{"an older one", []control.Claim{claim(2, claimant), claim(3, other)}, false},
		{"of another domain", []control.Claim{elsewhere}, false},
		{"of nobody known", []control.Claim{claim(3, key.Public{7})}, false},
	} {
		if got := firsthand(claim(3, other), tt.heard, peers); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
