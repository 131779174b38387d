package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"corax/dataplane"
)

func TestPing(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	for _, size := range []int{0, 1, 56, dataplane.DefaultMTU - pingOverhead} {
		if rtt, err := p.a.Ping(timeout(t), addrB, size); err != nil || rtt <= 0 {
			t.Fatalf("size %d: %s, %v", size, rtt, err)
		}
	}
}

func TestPingConcurrent(t *testing.T) {
	p := newPair(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := p.a.Ping(timeout(t), addrB, 8); err != nil {
				t.Error(err)
			}
			if _, err := p.b.Ping(timeout(t), addrA, 8); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(p.a.pings.m) + len(p.b.pings.m); n != 0 || p.a.pings.waiting.Load() != 0 {
		t.Errorf("%d pings left", n)
	}
}

func TestPingErrors(t *testing.T) {
	p := newPair(t)
	for _, dst := range []string{"10.0.0.1", "::", "ff02::1", "::ffff:10.0.0.1"} {
		if _, err := p.a.Ping(timeout(t), netip.MustParseAddr(dst), 8); err == nil {
			t.Errorf("pinged %s", dst)
		}
	}
	var big *TooBigError
	if _, err := p.a.Ping(timeout(t), addrB, 1361); !errors.As(err, &big) || big.MTU != dataplane.DefaultMTU {
		t.Errorf("1361 bytes: %v", err)
	}
	if _, err := p.a.Ping(timeout(t), addrB, -1); err == nil {
		t.Error("negative size")
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.ab.lose(func([]byte) bool { cancel(); return false })
	if _, err := p.a.Ping(ctx, addrB, 8); !errors.Is(err, context.Canceled) {
		t.Errorf("lost ping: %v", err)
	}
	if len(p.a.pings.m) != 0 {
		t.Error("a lost ping is still waiting")
	}
	if err := p.a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.a.Ping(t.Context(), addrB, 8); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// responder answers every echo request with what make returns.
type responder struct {
	self *Stack
	make func(request []byte) []byte
}

func (r *responder) Send(batch []dataplane.Packet) {
	for _, p := range batch {
		if b := r.make(bytes.Clone(p.Data)); b != nil {
			r.self.Send([]dataplane.Packet{{Data: b}})
		}
	}
}

// message is an ICMPv6 message from src to the stack.
func message(src netip.Addr, kind header.ICMPv6Type, rest uint32, body []byte) []byte {
	b := echoRequest(src, addrA, rest, len(body))
	e := header.ICMPv6(b[header.IPv6MinimumSize:])
	copy(e[echoLen:], body)
	e.SetType(kind)
	e.SetChecksum(0)
	e.SetChecksum(^checksumICMPv6(src, addrA, e))
	return b
}

func TestPingICMPErrors(t *testing.T) {
	other := netip.MustParseAddr("fd63:6f72:6178::c")
	for _, row := range []struct {
		name   string
		answer func(req []byte) []byte
		check  func(err error) bool
	}{
		{
			"unreachable", func(req []byte) []byte { return message(other, header.ICMPv6DstUnreachable, 0, req) },
			func(err error) bool { return errors.Is(err, ErrUnreachable) },
		},
		{
			"hop limit", func(req []byte) []byte { return message(addrB, header.ICMPv6TimeExceeded, 0, req) },
			func(err error) bool { return errors.Is(err, ErrUnreachable) },
		},
		{
			"too big", func(req []byte) []byte { return message(addrB, header.ICMPv6PacketTooBig, 1300, req) },
			func(err error) bool { big := (*TooBigError)(nil); return errors.As(err, &big) && big.MTU == 1300 },
		},
		{"answer", func(req []byte) []byte {
			return message(addrB, header.ICMPv6EchoReply, binary.BigEndian.Uint32(req[44:]), nil)
		}, func(err error) bool { return err == nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := &responder{make: row.answer}
			r.self = mustNew(t, addrA, r)
			defer r.self.Close()
			if _, err := r.self.Ping(timeout(t), addrB, 8); !row.check(err) {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestPingFalseAnswers: none of these answers the ping.
func TestPingFalseAnswers(t *testing.T) {
	other := netip.MustParseAddr("fd63:6f72:6178::c")
	id := func(req []byte) uint32 { return binary.BigEndian.Uint32(req[44:]) }
	for _, row := range []struct {
		name   string
		answer func(req []byte) []byte
	}{
		{"from somebody else", func(req []byte) []byte { return message(other, header.ICMPv6EchoReply, id(req), nil) }},
		{"another sequence number", func(req []byte) []byte { return message(addrB, header.ICMPv6EchoReply, id(req)+1, nil) }},
		{"another identifier", func(req []byte) []byte { return message(addrB, header.ICMPv6EchoReply, id(req)^1<<31, nil) }},
		{"bad checksum", func(req []byte) []byte {
			b := message(addrB, header.ICMPv6EchoReply, id(req), nil)
			b[42]++
			return b
		}},
		{"truncated", func(req []byte) []byte { return message(addrB, header.ICMPv6EchoReply, id(req), nil)[:44] }},
		{"for somebody else", func(req []byte) []byte {
			b := message(addrB, header.ICMPv6EchoReply, id(req), nil)
			b[39]++
			b[43]-- // the checksum stays right
			return b
		}},
		{"error about something else", func(req []byte) []byte {
			req[39]++
			return message(addrB, header.ICMPv6DstUnreachable, 0, req)
		}},
		{"error, cut short", func(req []byte) []byte { return message(addrB, header.ICMPv6DstUnreachable, 0, req[:40]) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			r := &responder{}
			r.make = func(req []byte) []byte {
				return row.answer(req)
			}
			r.self = mustNew(t, addrA, dataplane.SenderFunc(func(b []dataplane.Packet) { r.Send(b); cancel() }))
			defer r.self.Close()
			if _, err := r.self.Ping(ctx, addrB, 8); !errors.Is(err, context.Canceled) {
				t.Fatalf("%v, want no answer", err)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(message(addrB, header.ICMPv6EchoReply, 1, nil))
	f.Add(message(addrB, header.ICMPv6DstUnreachable, 0, echoRequest(addrA, addrB, 1, 8)))
	f.Add(message(addrB, header.ICMPv6PacketTooBig, 1280, echoRequest(addrA, addrB, 1, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < header.IPv6MinimumSize {
			return
		}
		var p pings
		p.init()
		p.next = 0
		if _, _, err := p.add(addrB); err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(b)
		took := p.answer(addrA, b)
		if !bytes.Equal(before, b) {
			t.Fatal("the packet was changed")
		}
		if took && (len(p.m) != 0 || b[40] != uint8(header.ICMPv6EchoReply)) {
			t.Fatalf("took %x", b)
		}
	})
}
