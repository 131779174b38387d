package control

import (
	"net/netip"
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
	// AllowSources, when not empty, are the only source prefixes that a hub takes
	// packets from; node addresses of its own domain and published addresses of
	// exposed Gateways are always taken.
	AllowSources []netip.Prefix
	// AllowClosed says that there should be such a list and it cannot be read: only
	// what is always taken is then, and AllowSources is empty.
	AllowClosed bool
	// Problems are sorted, without repetitions ([SortProblems]).
	Problems []Problem
}

// Equal reports whether two snapshots say the same.
func (s Snapshot) Equal(other Snapshot) bool { return reflect.DeepEqual(s, other) }
