package natlab_test

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"corax/nat/natlab"
	"corax/nat/stun"
)

// TestDiscovery lets nat/stun find out what each NAT is, with servers that do
// as RFC 5780 says and with two hubs that only tell the mapped address.
func TestDiscovery(t *testing.T) {
	type want struct {
		mapping   stun.Mapping
		filtering stun.Filtering
		preserved bool
		step      int
		hairpin   stun.Tri
	}
	const (
		eim, adm, apdm = stun.MappingEndpointIndependent, stun.MappingAddressDependent, stun.MappingAddressAndPortDependent
		eif, adf, apdf = stun.FilteringEndpointIndependent, stun.FilteringAddressDependent, stun.FilteringAddressAndPortDependent
	)
	hairpins := natlab.FullCone()
	hairpins.Hairpin = true
	for _, tt := range []struct {
		name string
		nat  natlab.NAT
		want want
	}{
		{"full cone", natlab.FullCone(), want{eim, eif, true, 0, stun.No}},
		{"full cone, hairpinning", hairpins, want{eim, eif, true, 0, stun.Yes}},
		{"address restricted", natlab.AddressRestricted(), want{eim, adf, true, 0, stun.No}},
		{"port restricted", natlab.PortRestricted(), want{eim, apdf, true, 0, stun.No}},
		{"masquerade", natlab.Masquerade(false), want{eim, apdf, true, 0, stun.No}},
		{"masquerade, INPUT open", natlab.Masquerade(true), want{eim, apdf, true, 0, stun.No}},
		{"sequential", natlab.SymmetricSequential(1), want{apdm, apdf, false, 1, stun.No}},
		{"sequential by 2", natlab.SymmetricSequential(2), want{apdm, apdf, false, 2, stun.No}},
		{"random", natlab.SymmetricRandom(), want{apdm, apdf, false, 0, stun.No}},
		{"address dependent", natlab.NAT{Mapping: natlab.AddressDependent, Filtering: natlab.AddressDependent, Ports: natlab.Random}, want{adm, adf, false, 0, stun.No}},
		{"endpoint independent, random", natlab.NAT{Mapping: natlab.EndpointIndependent, Filtering: natlab.AddressAndPortDependent, Ports: natlab.Random}, want{eim, apdf, false, 0, stun.No}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, rfc5780 := range []bool{true, false} {
				w := newWorld(1)
				w.serveSTUN(rfc5780)
				r := w.behind(tt.nat).discover(0)
				want := tt.want
				if !rfc5780 {
					// One port per server: nothing shows the filter, nor
					// what depends on the port only.
					want.filtering = stun.FilteringUnknown
					if r.Mapping == adm && want.mapping == apdm || r.Mapping == apdm && want.mapping == adm {
						want.mapping = r.Mapping
					}
				}
				if want.mapping > eim {
					want.hairpin = r.Hairpin // means nothing here
				}
				if got := (struct {
					mapping   stun.Mapping
					filtering stun.Filtering
					preserved bool
					step      int
					hairpin   stun.Tri
				}{r.Mapping, r.Filtering, r.PortPreserved, r.PortStep, r.Hairpin}); want != got {
					t.Errorf("RFC 5780 %v: got %v\nwant %+v", rfc5780, r.Family.String(), want)
				}
			}
		})
	}
}

func TestDiscoveryOfOtherThings(t *testing.T) {
	t.Run("blocked", func(t *testing.T) {
		w := newWorld(1)
		w.serveSTUN(true)
		in := w.behind(natlab.FullCone())
		in.router.SetBlocked(true)
		if r := in.discover(0); !r.Blocked {
			t.Errorf("got %v", r.Family.String())
		}
	})
	t.Run("lossy", func(t *testing.T) {
		w := newWorld(9)
		w.serveSTUN(true)
		w.wan.SetLink(natlab.Link{Latency: 80 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.05, Reorder: 0.1})
		if r := w.behind(natlab.PortRestricted()).discover(0); r.Mapping != stun.MappingEndpointIndependent || len(r.Public) != 1 {
			t.Errorf("got %v, public %v", r.Family.String(), r.Public)
		}
	})
	t.Run("lifetime", func(t *testing.T) {
		for _, life := range []time.Duration{40 * time.Second, 2 * time.Minute} {
			for _, ports := range []natlab.Ports{natlab.Preserve, natlab.Random} {
				w := newWorld(1)
				// Only with RESPONSE-PORT is it seen when the port is preserved.
				w.serveSTUN(ports == natlab.Preserve)
				nat := natlab.PortRestricted()
				nat.Ports, nat.Replied = ports, life
				if r := w.behind(nat).discover(5 * time.Minute); r.Lifetime > life || r.Lifetime < life*4/5 {
					t.Errorf("ports %v: measured %v, true is %v", ports, r.Lifetime, life)
				}
			}
		}
	})
}

// serveSTUN lets the two servers answer STUN in place of echo: as the two
// addresses of one RFC 5780 server, or as two hubs.
func (w *world) serveSTUN(rfc5780 bool) {
	for i, a := range echoAddrs {
		for _, port := range []uint16{echoPort, echoAltPort} {
			other := netip.AddrPortFrom(echoAddrs[1-i], echoPort+echoAltPort-port)
			w.socks[netip.AddrPortFrom(a, port)] = w.servers[i].Listen(port, func(now time.Time, d natlab.Datagram) {
				from := netip.AddrPortFrom(a, port)
				if !rfc5780 {
					var s stun.Server
					if b, ok := s.Answer(nil, d.Data, d.From, now); ok && port == echoPort {
						_ = w.socks[from].Send(d.From, b, 0, false)
					}
					return
				}
				m, err := stun.Parse(d.Data)
				if err != nil || m.Kind != stun.KindRequest {
					return
				}
				changeIP, changePort, to := requested(d.Data, d.From)
				if changeIP {
					from = netip.AddrPortFrom(other.Addr(), from.Port())
				}
				if changePort {
					from = netip.AddrPortFrom(from.Addr(), other.Port())
				}
				_ = w.socks[from].Send(to, response(m.Tx, d.From, other), 0, false)
			})
		}
	}
}

// requested reads CHANGE-REQUEST and RESPONSE-PORT (RFC 5780 sections 7.2 and
// 7.5): whether the answer is to come from elsewhere, and where it goes.
func requested(b []byte, source netip.AddrPort) (ip, port bool, to netip.AddrPort) {
	to = source
	for b = b[20:]; len(b) >= 8; {
		n := int(binary.BigEndian.Uint16(b[2:]))
		switch binary.BigEndian.Uint16(b) {
		case 0x0003:
			ip, port = b[7]&4 != 0, b[7]&2 != 0
		case 0x0027:
			to = netip.AddrPortFrom(source.Addr(), binary.BigEndian.Uint16(b[4:]))
		}
		b = b[min(len(b), 4+(n+3)&^3):]
	}
	return ip, port, to
}

// response is a success response with MAPPED-ADDRESS and OTHER-ADDRESS.
func response(tx stun.TxID, mapped, other netip.AddrPort) []byte {
	attr := func(b []byte, typ uint16, a netip.AddrPort) []byte {
		b = append(binary.BigEndian.AppendUint16(b, typ), 0, 8, 0, 1)
		return append(binary.BigEndian.AppendUint16(b, a.Port()), a.Addr().AsSlice()...)
	}
	b := []byte{1, 1, 0, 24, 0x21, 0x12, 0xa4, 0x42}
	return attr(attr(append(b, tx[:]...), 0x0001, mapped), 0x802c, other)
}

// discover runs a Discovery on the inside host until it is done.
func (in *inside) discover(lifetime time.Duration) stun.Report {
	lab := in.w.lab
	d := stun.NewDiscovery(stun.Config{
		Servers:     []netip.AddrPort{netip.AddrPortFrom(echoAddrs[0], echoPort), netip.AddrPortFrom(echoAddrs[1], echoPort)},
		Local:       []netip.AddrPort{netip.MustParseAddrPort("192.168.1.2:4500")},
		MaxLifetime: lifetime, Rand: &counting{},
	})
	var step func(ev stun.Event)
	receive := func(other bool) func(time.Time, natlab.Datagram) {
		return func(_ time.Time, dg natlab.Datagram) {
			if m, err := stun.Parse(dg.Data); err == nil {
				step(stun.ResponseIn{Message: m, From: dg.From, OnOther: other})
			}
		}
	}
	sock, extra := in.host.Listen(4500, receive(false)), in.host.Listen(0, receive(true))
	var timer *natlab.Timer
	step = func(ev stun.Event) {
		for _, a := range d.Step(lab.Now(), ev) {
			s := a.(stun.Send)
			from := sock
			if s.FromOther {
				from = extra
			}
			_ = from.Send(s.To, s.Data, 0, false)
		}
		timer.Stop()
		if at := d.Deadline(); !at.IsZero() {
			timer = lab.After(at.Sub(lab.Now()), func() { step(stun.Tick{}) })
		}
	}
	step(stun.Tick{})
	lab.RunUntil(time.Hour, d.Done)
	return d.Report()
}

// counting is a source of distinct bytes that a run can repeat.
type counting struct{ n uint64 }

func (c *counting) Read(b []byte) (int, error) {
	c.n++
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, c.n))
	return copy(b, sum[:]), nil
}
