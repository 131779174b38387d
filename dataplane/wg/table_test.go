package wg

import (
	"net/netip"
	"strings"
	"testing"

	"corax/dataplane/key"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestTablePath(t *testing.T) {
	tb := newTable()
	p, q := tb.add(key.Public{1}), tb.add(key.Public{2})
	if tb.add(key.Public{1}) != p {
		t.Fatal("a second add makes another peer")
	}
	first := directPath(addr("192.0.2.1:1"), netip.Addr{}, 0)
	tb.setPath(p, first, nil)
	if tb.at(first.spot()) != p {
		t.Fatal("peer not found by its path")
	}
	second := directPath(addr("192.0.2.2:2"), netip.Addr{}, 0)
	if tb.setPath(p, directPath(addr("192.0.2.3:3"), netip.Addr{}, 0), &second) {
		t.Error("a path was replaced that is not there")
	}
	if !tb.setPath(p, second, &first) || tb.at(first.spot()) != nil || tb.at(second.spot()) != p {
		t.Error("path did not move")
	}
	// Two peers at one address: the later one counts, and leaves alone.
	tb.setPath(q, directPath(second.to, netip.Addr{}, 0), nil)
	tb.setPath(p, first, nil)
	if tb.at(second.spot()) != q {
		t.Error("leaving an address took it from the peer that shares it")
	}
	tb.remove(p)
	if tb.at(first.spot()) != nil || tb.get(p.key) != nil || p.path.Load() != nil {
		t.Error("a removed peer is still found")
	}
	if tb.setPath(p, first, nil) {
		t.Error("a removed peer got a path")
	}
}

func TestTableIndices(t *testing.T) {
	tb := newTable()
	p, q := tb.add(key.Public{1}), tb.add(key.Public{2})
	for i := range uint32(indicesPerPeer) {
		tb.note(p, i)
		tb.note(p, i) // sent again
	}
	if got, ok := tb.session(0); !ok || got != p {
		t.Fatal("the first index is gone too early")
	}
	tb.note(p, 1000)
	if _, ok := tb.session(0); ok {
		t.Error("indices are not bounded")
	}
	if got, _ := tb.session(1000); got != p {
		t.Error("the newest index is missing")
	}
	tb.note(q, 5) // wireguard-go gave p's old index to q
	tb.remove(p)
	if got, _ := tb.session(5); got != q {
		t.Error("removing a peer took an index that is another's now")
	}
	tb.note(p, 6)
	if _, ok := tb.session(6); ok {
		t.Error("a removed peer got an index")
	}
	tb.note(nil, 77)
	if got, ok := tb.session(77); !ok || got != nil {
		t.Error("a stranger's session is unknown")
	}
	if n := len(tb.byIndex); n != 2 {
		t.Errorf("%d indices left, want 2", n)
	}
}

// TestSourceAfterChoice checks that a path chosen after a packet came in wins
// over that packet's source.
func TestSourceAfterChoice(t *testing.T) {
	tb := newTable()
	b := newTestBind()
	b.table = tb
	p := tb.add(key.Public{1})
	tb.setPath(p, directPath(addr("192.0.2.1:1"), netip.Addr{}, 0), nil)
	s := directSource(addr("192.0.2.9:9"), netip.Addr{}, 1, p)
	if got := s.DstToString(); got != "192.0.2.9:9" {
		t.Errorf("DstToString = %s", got)
	}
	chosen := directPath(addr("192.0.2.2:2"), netip.Addr{}, 0)
	tb.setPath(p, chosen, nil)
	b.prove(p, s)
	if p.path.Load() != chosen {
		t.Error("an older packet moved the path")
	}
	if got := s.DstToString(); got != "192.0.2.2:2" {
		t.Errorf("DstToString = %s", got)
	}
	fresh := directSource(addr("192.0.2.9:9"), netip.MustParseAddr("192.0.2.100"), 2, p)
	b.prove(p, fresh)
	if w := p.path.Load(); w.to != fresh.to || w.local != fresh.local || w.heard.Load() != 2 {
		t.Errorf("path is %v", w.to)
	}
	p.ClearSrc()
	if w := p.path.Load(); w.to != fresh.to || w.local.IsValid() || w.heard.Load() != 2 {
		t.Error("ClearSrc keeps the local address, or loses the path")
	}
}

// TestSourceCountsOnce: wireguard-go keeps a source for as long as the peer
// does not move; only the first message to it moves the path.
func TestSourceCountsOnce(t *testing.T) {
	b := newTestBind()
	p := b.table.add(key.Public{1})
	p.remote.Store(7)
	s, err := b.ParseEndpoint("192.0.2.9:9") // as from `wg set`
	if err != nil {
		t.Fatal(err)
	}
	data := [][]byte{message(sizeKeepalive, 4, 0, 0, 0, 7)}
	chosen := directPath(addr("192.0.2.2:2"), netip.Addr{}, 0)
	for i, want := range []string{"192.0.2.9:9", "192.0.2.2:2", "192.0.2.2:2"} {
		if err := b.Send(data, s); err != nil {
			t.Fatal(err)
		}
		if got := p.DstToString(); got != want {
			t.Fatalf("message %d: path %s, want %s", i, got, want)
		}
		if got := s.DstToString(); got != want {
			t.Fatalf("message %d: the source says %s, want %s", i, got, want)
		}
		b.table.setPath(p, chosen, nil)
	}
	for _, bad := range []string{"", "x", "192.0.2.1", "peer:", "peer:00", "peer:" + strings.Repeat("00", 32)} {
		if _, err := b.ParseEndpoint(bad); err == nil {
			t.Errorf("ParseEndpoint(%q) works", bad)
		}
	}
}

func TestPeerWithoutPath(t *testing.T) {
	p := newTable().add(key.Public{1})
	if got := p.DstToString(); got != "0.0.0.0:0" {
		t.Errorf("DstToString = %q: readers of the user API need ip:port", got)
	}
	if p.SrcToString() != "" || p.SrcIP().IsValid() {
		t.Error("a source address without path")
	}
	p.ClearSrc()
}
