package control

import (
	"bytes"

	"golang.org/x/crypto/blake2s"
)

// Home returns the active endpoint on which a node is homed: the one with the
// highest rendezvous hash, BLAKE2s-256(node + "\0" + endpoint). A carrier that
// comes or goes moves only the nodes that it gains or loses. Without active
// endpoints it returns "". The order of active does not matter.
func Home(node string, active []string) string {
	var best string
	var top [blake2s.Size]byte
	for _, name := range active {
		h := blake2s.Sum256([]byte(node + "\x00" + name))
		if best == "" || bytes.Compare(h[:], top[:]) > 0 {
			best, top = name, h
		}
	}
	return best
}

// owner returns the carrier that carries the subnets of the domain's node; ""
// when there is none.
func (d *domain) owner(n *node) string {
	if _, ok := d.carriers[n.name]; ok {
		return n.name
	}
	return Home(n.name, d.carrierNames)
}
