package exposure

import (
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2s"
)

// namePrefix is that of Raven's Services. With 35 bytes of the Gateway's name and
// the hash a name has 63, which is all that a Service may have.
const (
	namePrefix  = "x-raven-tunnel-svc-"
	maxNamePart = 35
)

// serviceName returns a name for a Service of a hub: Raven's form, with a hash
// instead of its random number, so that it is found again after a crash. The first
// attempt that taken does not know counts.
func serviceName(gateway, node, protocols string, taken map[string]bool) string {
	for attempt := 0; ; attempt++ {
		h := blake2s.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", gateway, node, protocols, attempt))
		name := namePrefix + fit(gateway) + "-" + hex.EncodeToString(h[:4])
		if !taken[name] {
			return name
		}
	}
}

// fit returns name when it may be a part of a Service's name, else the first 26
// characters of it that may and a hash.
func fit(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' {
			b.WriteByte(c)
		}
	}
	if b.Len() == len(name) && len(name) <= maxNamePart {
		return name
	}
	h := blake2s.Sum256([]byte(name))
	return b.String()[:min(b.Len(), 26)] + "-" + hex.EncodeToString(h[:4])
}
