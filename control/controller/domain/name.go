package domain

import (
	"encoding/hex"
	"strings"

	"golang.org/x/crypto/blake2s"
)

// Names of Gateways are used in label values, and with a prefix and a suffix as
// names of Services, which are DNS-1035 labels of at most 63 characters.
const (
	maxName = 35
	maxStem = 26
)

// nameFor chooses the name of a new Gateway: the wanted one, else one with a hash
// of it, else, when even that is taken, one with a hash of the domain.
func nameFor(id ID, taken func(string) bool) string {
	wanted := id.wantedName()
	if fits(wanted) && !taken(wanted) {
		return wanted
	}
	name := hashed(wanted, wanted)
	if !taken(name) {
		return name
	}
	name = hashed(wanted, string(id))
	for salt := string(id); taken(name); {
		salt += "+"
		name = hashed(wanted, salt)
	}
	return name
}

// fits reports whether s is a DNS-1035 label that is short enough.
func fits(s string) bool { return s != "" && len(s) <= maxName && stem(s, maxName) == s }

// hashed makes a name of what fits of s, and 8 hex digits that tell it from
// others.
func hashed(s, unique string) string {
	sum := blake2s.Sum256([]byte(unique))
	head := stem(s, maxStem)
	if head == "" {
		head = "domain"
	}
	return head + "-" + hex.EncodeToString(sum[:4])
}

// stem returns the first characters of s that fit a DNS-1035 label: it begins
// with a letter and does not end with a dash.
func stem(s string, most int) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(s)) {
		letter := 'a' <= c && c <= 'z'
		if b.Len() == most {
			break
		}
		if letter || b.Len() > 0 && (c == '-' || '0' <= c && c <= '9') {
			b.WriteByte(c)
		}
	}
	return strings.TrimRight(b.String(), "-")
}
