package control

import (
	"reflect"

	"corax/control/api/v1beta1"
)

// Snapshot is what a source knows at one moment. It is never changed after it
// was handed out.
type Snapshot struct {
	// Gateways are sorted by name, which occurs once.
	Gateways []v1beta1.Gateway
	// EnableTunnel and EnableProxy are the switches for the whole cluster.
	EnableTunnel bool
	EnableProxy  bool
	// Problems are sorted, without repetitions ([SortProblems]).
	Problems []Problem
}

// Equal reports whether two snapshots say the same.
func (s Snapshot) Equal(other Snapshot) bool { return reflect.DeepEqual(s, other) }
