package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ep := netip.MustParseAddrPort("203.0.113.1:4500")
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	hub := dataplane.Peer{Keepalive: 20 * time.Second}
	for _, tc := range []struct {
		name string
		f    peerFacts
		want PathKind
		why  string
	}{
		{"port closed", peerFacts{}, PathNone, "tunnel port"},
		{"edge that never called, nobody asks", peerFacts{open: true}, PathIdle, "first packet must come"},
		{"edge that is looked for", peerFacts{open: true, search: true}, PathIdle, "with the first packet"},
		{"edge that never called, packets for it", peerFacts{open: true, wanted: true}, PathNone, "behind a NAT"},
		{"hub that does not answer", peerFacts{open: true, configured: hub, state: dataplane.PeerStatus{Endpoint: ep}}, PathNone, "handshake"},
		{"peer with an address, no traffic yet", peerFacts{open: true, state: dataplane.PeerStatus{Endpoint: ep}}, PathIdle, "no traffic"},
		{"up", peerFacts{open: true, configured: hub, state: dataplane.PeerStatus{Endpoint: ep, LastHandshake: ago(time.Minute), LastReceive: ago(time.Second)}}, PathDirect, "best"},
		{"up although a ping was lost", peerFacts{open: true, ping: reading{silent: 2}, state: dataplane.PeerStatus{Endpoint: ep, LastHandshake: ago(time.Minute), LastReceive: ago(time.Second)}}, PathDirect, "best"},
		{"silent", peerFacts{open: true, ping: reading{silent: 2, answered: ago(time.Minute)}, state: dataplane.PeerStatus{Endpoint: ep, LastHandshake: ago(time.Hour), LastReceive: ago(time.Minute)}}, PathNone, "for 1m0s"},
		{"packets go, none come", peerFacts{open: true, wanted: true, state: dataplane.PeerStatus{Endpoint: ep, LastHandshake: ago(time.Hour), LastReceive: ago(time.Minute)}}, PathNone, "nothing came"},
		{"edge over TLS", peerFacts{open: true, state: dataplane.PeerStatus{Stream: true, LastHandshake: ago(time.Minute), LastReceive: ago(time.Second)}}, PathRelayTLS, "over TLS"},
		{"edge over a relay", peerFacts{open: true, state: dataplane.PeerStatus{Via: key.Public{1}, LastHandshake: ago(time.Minute), LastReceive: ago(time.Second)}}, PathRelay, "over a relay"},
		{"edge over TLS, silent", peerFacts{open: true, state: dataplane.PeerStatus{Stream: true, LastHandshake: ago(time.Hour), LastReceive: ago(time.Minute)}}, PathNone, "for 1m0s"},
		{"session without traffic", peerFacts{open: true, state: dataplane.PeerStatus{Endpoint: ep, LastHandshake: ago(time.Hour), LastReceive: ago(time.Minute)}}, PathIdle, "no traffic"},
	} {
		tc.f.now = now
		got, why := judge(tc.f)
		if got != tc.want || !strings.Contains(why, tc.why) {
			t.Errorf("%s: %s, %q; want %s, ...%s...", tc.name, got, why, tc.want, tc.why)
		}
	}
}

// TestTrafficStarved: a packet is wanted although it could not be sent.
func TestTrafficStarved(t *testing.T) {
	k := key.Public{1}
	start := time.Unix(100, 0)
	var tr traffic
	for i, starved := range []uint64{0, 0, 1, 1, 5} {
		tr.sample(start.Add(time.Duration(i)*time.Second), []dataplane.PeerStatus{{PublicKey: k, Starved: starved}}, nil)
		want := map[int]time.Time{2: start.Add(2 * time.Second), 3: start.Add(2 * time.Second), 4: start.Add(4 * time.Second)}[i]
		if tx, _ := tr.peer(k); !tx.Equal(want) {
			t.Errorf("second %d: %v, want %v", i, tx, want)
		}
	}
}

func TestTraffic(t *testing.T) {
	k := key.Public{1}
	a := netip.MustParseAddr("10.0.0.1")
	start := time.Unix(100, 0)
	var tr traffic
	for i, step := range []struct {
		name   string
		tx, rx uint64
		lastTx int // second in which the last counted packet went out; -1: none
		lastRx int
	}{
		{"first sight counts nothing", 5000, 5000, -1, -1},
		{"our own ping is no traffic", 5200, 5200, -1, 1},
		{"packets go out", 9000, 5200, 2, 1},
		{"silence", 9000, 5200, 2, 1},
		{"an answer", 9000, 5300, 2, 4},
	} {
		now := start.Add(time.Duration(i) * time.Second)
		tr.sample(now,
			[]dataplane.PeerStatus{{PublicKey: k, TxBytes: step.tx, RxBytes: step.rx}},
			[]dataplane.VTEPStatus{{Addr: a, TxBytes: step.tx, RxBytes: step.rx}})
		at := func(s int) time.Time {
			if s < 0 {
				return time.Time{}
			}
			return start.Add(time.Duration(s) * time.Second)
		}
		if tx, rx := tr.peer(k); tx != at(step.lastTx) || rx != at(step.lastRx) {
			t.Errorf("%s: peer %v, %v", step.name, tx, rx)
		}
		if tx, rx := tr.vtep(a); tx != at(step.lastTx) || rx != at(step.lastRx) {
			t.Errorf("%s: vtep %v, %v", step.name, tx, rx)
		}
	}
	tr.sample(start.Add(time.Hour), nil, nil)
	if tx, _ := tr.peer(k); !tx.IsZero() {
		t.Error("a peer that is gone is remembered")
	}
}
