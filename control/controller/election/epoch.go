package election

import (
	"cmp"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/blake2s"

	"corax/control/api/v1beta1"
)

// Epoch returns the annotations that raise the Gateway's epoch when its active
// set, as status has it, is another than the one that the epoch was raised for;
// nil when it is the same. The status is written first: who hears of the higher
// epoch then finds the new set. If the controller dies between the two writes, the
// next one finds the set and the mark apart.
func Epoch(g *v1beta1.Gateway) map[string]string {
	had, stated := g.Metadata.Annotations[v1beta1.AnnotationEpochOf]
	if !stated && len(g.Status.ActiveEndpoints) == 0 {
		return nil
	}
	mark := fingerprint(g.Status.ActiveEndpoints)
	if stated && had == mark {
		return nil
	}
	n, _ := g.Epoch() // one that cannot be read counts as zero, to agents as well
	if n < math.MaxUint64 {
		n++
	}
	return map[string]string{
		v1beta1.AnnotationEpoch:   strconv.FormatUint(n, 10),
		v1beta1.AnnotationEpochOf: mark,
	}
}

// fingerprint tells sets of active endpoints apart, by type and node.
func fingerprint(active []v1beta1.Endpoint) string {
	var all []string
	for i := range active {
		all = append(all, active[i].Type+"/"+active[i].NodeName)
	}
	slices.Sort(all)
	sum := blake2s.Sum256([]byte(strings.Join(slices.Compact(all), "\n")))
	return hex.EncodeToString(sum[:8])
}

// sortEndpoints sorts as Raven sorts status.activeEndpoints, and by type.
func sortEndpoints(list []v1beta1.Endpoint) {
	slices.SortStableFunc(list, func(a, b v1beta1.Endpoint) int {
		return cmp.Or(cmp.Compare(a.NodeName, b.NodeName), cmp.Compare(a.Type, b.Type))
	})
}
