package wg

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// stats is what wireguard-go says of one peer.
type stats struct {
	key       key.Public
	endpoint  netip.AddrPort
	sec, nsec int64 // of the last handshake
	rx, tx    uint64
}

// statsWriter takes the user API's answer to get. The answer holds keys, so it
// is read where it lies, and nothing else of it is kept.
type statsWriter struct{ peers []stats }

// Write parses one whole answer: wireguard-go writes it at once.
func (w *statsWriter) Write(b []byte) (int, error) {
	w.peers = parseStats(w.peers[:0], b)
	return len(b), nil
}

// parseStats appends the peers of an answer to out.
func parseStats(out []stats, b []byte) []stats {
	var s *stats
	for line := range bytes.Lines(b) {
		name, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("="))
		if !ok {
			continue
		}
		if string(name) == "public_key" {
			var k key.Public
			if hex.DecodedLen(len(value)) != key.Size {
				s = nil
				continue
			}
			if _, err := hex.Decode(k[:], value); err != nil {
				s = nil
				continue
			}
			out = append(out, stats{key: k})
			s = &out[len(out)-1]
			continue
		}
		if s != nil {
			s.set(string(name), value)
		}
	}
	return out
}

// set takes one line of a peer; a value that does not parse counts as zero.
func (s *stats) set(name string, value []byte) {
	switch name {
	case "endpoint":
		s.endpoint, _ = netip.ParseAddrPort(string(value))
	case "last_handshake_time_sec":
		s.sec, _ = strconv.ParseInt(string(value), 10, 64)
	case "last_handshake_time_nsec":
		s.nsec, _ = strconv.ParseInt(string(value), 10, 64)
	case "rx_bytes":
		s.rx, _ = strconv.ParseUint(string(value), 10, 64)
	case "tx_bytes":
		s.tx, _ = strconv.ParseUint(string(value), 10, 64)
	}
}

// seen is what earlier calls of Status found out about a peer.
type seen struct {
	rx       uint64
	received int64 // LastReceive in Unix nanoseconds
	proven   int64 // Proven in Unix nanoseconds
	at       way   // the way that proven is about
	path     *path // before the figures were taken; only during Status
}

// Status returns a snapshot of every peer, sorted by key. LastReceive and
// Proven move when the received bytes have grown since the call before, so call
// it regularly. Its cost grows with the number of peers and allowed IPs.
func (d *Device) Status() []dataplane.PeerStatus {
	d.statusMu.Lock()
	defer d.statusMu.Unlock()
	peers := d.table.all()
	slices.SortFunc(peers, func(a, b *peer) int { return bytes.Compare(a.key[:], b.key[:]) })
	for _, p := range peers {
		p.seen.path = p.path.Load()
	}
	told := d.told()
	out := make([]dataplane.PeerStatus, len(peers))
	for i, p := range peers {
		for len(told) > 0 && bytes.Compare(told[0].key[:], p.key[:]) < 0 {
			told = told[1:] // a peer that only the user API knows
		}
		s := stats{key: p.key}
		if len(told) > 0 && told[0].key == p.key {
			s = told[0]
		}
		out[i] = p.status(s, p.seen.path)
		p.seen.path = nil
	}
	return out
}

// told returns what wireguard-go says of its peers, sorted by key. The result is
// good until the next call; Status holds the lock.
func (d *Device) told() []stats {
	d.stats.peers = d.stats.peers[:0]
	dev := d.dev.Load()
	if dev == nil || dev.IpcGetOperation(&d.stats) != nil {
		return nil
	}
	all := d.stats.peers
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].key[:], all[j].key[:]) < 0 })
	return d.stats.peers
}

// status merges wireguard-go's figures with the bind's. was is the path before
// the figures were taken.
func (p *peer) status(s stats, was *path) dataplane.PeerStatus {
	if s.endpoint.Port() != 0 && (was == nil || !was.pinned && was.direct() && was.to != s.endpoint) {
		// The device has authenticated a packet from there, and has not sent
		// since: otherwise the bind would know.
		p.table.setPath(p, newPath(p.came(s.endpoint), false, p.heard.Load()), &was)
	}
	w := p.path.Load()
	if s.rx > p.seen.rx {
		p.seen.rx = s.rx
		p.seen.received = p.heard.Load()
		if w != nil && w.heard.Load() != 0 {
			p.seen.proven, p.seen.at = w.heard.Load(), w.way
		}
	}
	out := dataplane.PeerStatus{PublicKey: p.key, RxBytes: s.rx, TxBytes: s.tx, Starved: p.starved.Load()}
	if w != nil {
		out.Endpoint = w.to
		out.Stream = w.stream != nil
		if w.via != nil {
			out.Via = w.via.key
			hub := w.via.path.Load()
			out.Stream = hub != nil && hub.stream != nil
		}
		if p.seen.at.same(&w.way) {
			out.Proven = unixTime(p.seen.proven)
		}
	}
	out.LastReceive = unixTime(p.seen.received)
	if s.sec != 0 || s.nsec != 0 {
		out.LastHandshake = time.Unix(s.sec, s.nsec)
	}
	return out
}

// came returns the way by which p was last heard from addr.
func (p *peer) came(addr netip.AddrPort) way {
	if s := p.spare.Load(); s != nil && s.direct() && s.to == addr {
		return way{to: addr, socket: s.socket}
	}
	return way{to: addr}
}

func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
