package hello

import (
	"fmt"
	"slices"

	"corax/dataplane/key"
)

// What we say is checked as strictly as what we hear, so that a mistake shows at
// its source and not as a value that every peer refuses.

func bound(what string, n, most int) error {
	if n > most {
		return fmt.Errorf("%d %s, at most %d: %w", n, what, most, errSize)
	}
	return nil
}

func (c *codec) self(s Self) ([]byte, error) {
	for _, text := range []string{s.Version, s.Gateway, s.Node} {
		if err := validText(text); err != nil {
			return nil, err
		}
	}
	return c.enc.Marshal(wireSelf(s))
}

func (c *codec) candidates(v Candidates) ([]byte, error) {
	if err := bound("candidates", len(v.Addrs), MaxAddrs); err != nil {
		return nil, err
	}
	if v.ProbeKey == ([32]byte{}) {
		return nil, fmt.Errorf("probe key: %w", errForm)
	}
	w := wireCandidates{
		ProbeID: v.ProbeID[:], ProbeKey: v.ProbeKey[:],
		Mapping: v.Mapping, Filtering: v.Filtering, PortStep: v.PortStep,
		Blocked: v.Blocked, Calls: v.Calls, MTU: v.MTU,
	}
	for _, a := range v.Addrs {
		if !validCandidate(a.Addr) {
			return nil, fmt.Errorf("candidate %s: %w", a.Addr, errForm)
		}
		w.Addrs = append(w.Addrs, wireCandidate{a.Kind, appendAddrPort(a.Addr)})
	}
	if v.Test != (Test{}) {
		if !validCandidate(v.Test.Addr) {
			return nil, fmt.Errorf("address to test %s: %w", v.Test.Addr, errForm)
		}
		w.Test = append(v.Test.Tx[:], appendAddrPort(v.Test.Addr)...)
	}
	return c.enc.Marshal(w)
}

func (c *codec) relay(v Relay) ([]byte, error) {
	if err := bound("wanted peers", len(v.Wanted), MaxWanted); err != nil {
		return nil, err
	}
	if err := bound("labels", len(v.Labels), MaxLabels); err != nil {
		return nil, err
	}
	var w wireRelay
	for _, x := range v.Wanted {
		if x.Peer.IsZero() {
			return nil, fmt.Errorf("wanted peer: %w", errForm)
		}
		w.Wanted = append(w.Wanted, wireWant{appendName(x.Peer), appendName(x.Next), appendName(x.Origin)})
	}
	for _, l := range v.Labels {
		if l.Peer.IsZero() || !validLabel(l.Label) || len(l.Via) > MaxVia || slices.Contains(l.Via, key.Public{}) {
			return nil, fmt.Errorf("label: %w", errForm)
		}
		w.Labels = append(w.Labels, wireLabel{appendName(l.Peer), l.Label, l.CostMicros, appendNames(l.Via), appendName(l.Origin)})
	}
	return c.enc.Marshal(w)
}

// validLabel: the frame has room for 56 bits, and zero means none.
func validLabel(l uint64) bool { return l != 0 && l < 1<<56 }

func appendNames(ks []key.Public) [][]byte {
	var out [][]byte
	for _, k := range ks {
		out = append(out, appendName(k))
	}
	return out
}

func (c *codec) costs(v Costs) ([]byte, error) {
	if err := bound("links", len(v.Links), MaxLinks); err != nil {
		return nil, err
	}
	var w wireCosts
	for _, l := range v.Links {
		if l.To.IsZero() {
			return nil, fmt.Errorf("link: %w", errForm)
		}
		w.Links = append(w.Links, wireLink{appendName(l.To), l.Micros, l.Hub})
	}
	return c.enc.Marshal(w)
}

func (c *codec) claims(v Claims) ([]byte, error) {
	if err := validActive(v.Gateway, v.Active); err != nil {
		return nil, err
	}
	return c.enc.Marshal(wireClaims{Epoch: v.Epoch, Gateway: v.Gateway, Active: v.Active})
}

// validActive checks who is active in a gateway.
func validActive(gateway string, active []string) error {
	if err := bound("active nodes", len(active), MaxActive); err != nil {
		return err
	}
	for _, text := range append([]string{gateway}, active...) {
		if err := validText(text); err != nil {
			return err
		}
	}
	return nil
}
