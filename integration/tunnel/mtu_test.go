//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const mtuPort = 7300

// mtuLab is one cloud and one edge, with every agent up.
func mtuLab(t *testing.T, opt lab.Options) *lab.Topology {
	t.Helper()
	opt.Edges = 1
	topo := lab.Standard(lab.ForTest(t), opt)
	if !opt.V6Underlay {
		// The sites have IPv6 too, where less fits, and the path takes it when it was
		// measured as the faster one.
		topo.Domains[1].Router.Block(topo.Domains[0].Nodes[0].IP6())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	// The hub first: a handshake that finds it away is repeated 5 s later.
	for _, a := range topo.Agents() {
		if err := errors.Join(a.Start(), a.WaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	// What follows must not meet the first handshake: then packets wait, and
	// an error comes late.
	for _, edge := range topo.Domains[1].Nodes {
		for _, cloud := range topo.Domains[0].Nodes {
			for _, v6 := range []bool{false, true} {
				if err := edge.Pods[0].PingBetween(ctx, cloud.Pods[0], v6); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return topo
}

// datagrams is a one-way stream of UDP between two pods.
type datagrams struct {
	from, to *lab.Pod
	dst      netip.AddrPort
	header   int // of IP and UDP
	tx, rx   *net.UDPConn
	icmp     *lab.ICMPConn
	bigs     *lab.Capture // messages "too big" that reach the sender
}

func newDatagrams(t *testing.T, from, to *lab.Pod, v6 bool, port uint16) *datagrams {
	t.Helper()
	d := &datagrams{from: from, to: to, header: 28, dst: netip.AddrPortFrom(to.IP, port)}
	if v6 {
		d.header, d.dst = 48, netip.AddrPortFrom(to.IP6, port)
	}
	var err error
	if d.rx, err = to.ListenUDP(d.dst); err != nil {
		t.Fatal(err)
	}
	if d.tx, err = from.DialUDP(d.dst); err != nil {
		t.Fatal(err)
	}
	if d.icmp, err = from.ListenICMP(v6); err != nil {
		t.Fatal(err)
	}
	if d.bigs, err = from.Capture("eth0", incomingTooBig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.rx.Close()
		_ = d.tx.Close()
		_ = d.icmp.Close()
	})
	return d
}

// incomingTooBig wants "fragmentation needed" and "packet too big".
func incomingTooBig(f lab.Frame) bool {
	p := f.Data[14:]
	switch {
	case f.Outgoing:
		return false
	case f.Protocol == unix.IPPROTO_ICMP && f.Src.Is4():
		p = p[int(p[0]&15)*4:]
		return len(p) > 1 && p[0] == 3 && p[1] == 4
	case f.Protocol == unix.IPPROTO_ICMPV6:
		return len(p) > 40 && p[40] == 2
	}
	return false
}

// send sends one datagram that makes an IP packet of size bytes.
func (d *datagrams) send(t *testing.T, size int, df bool) []byte {
	t.Helper()
	if err := lab.SetDF(d.tx, df); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size-d.header)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	// An error about an earlier datagram belongs to that one.
	if _, err := d.tx.Write(b); err != nil {
		if _, err = d.tx.Write(b); err != nil {
			t.Fatalf("send %d bytes: %v", size, err)
		}
	}
	return b
}

// refused sends a packet of size bytes with DF and wants one error that asks for
// mtu, from a source that the sender can believe.
func (d *datagrams) refused(t *testing.T, size, mtu int, source func(netip.Addr) bool) {
	t.Helper()
	before := d.bigs.Count()
	sent := d.send(t, size, true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e, err := d.icmp.Next(ctx)
	if err != nil {
		t.Fatalf("%d bytes with DF: no error came back: %v", size, err)
	}
	if !e.TooBig() || e.MTU != mtu || e.Dst != d.dst.Addr() {
		t.Errorf("%d bytes with DF: %v; want too big, MTU %d, about %v", size, e, mtu, d.dst.Addr())
	}
	if !source(e.From) {
		t.Errorf("%d bytes with DF: %v: unexpected source", size, e)
	}
	if len(e.Payload) < 8 || !bytes.HasPrefix(sent, e.Payload[8:]) && len(e.Payload) <= len(sent)+8 {
		t.Errorf("the error does not quote the datagram")
	}
	// Paths keep the order: when an answer to a later packet is here, so is
	// everything that the datagram caused.
	if _, err := d.from.PingUntil(ctx, d.dst.Addr(), lab.PingOptions{}); err != nil {
		t.Error(err)
	}
	if n := d.bigs.Count() - before; n != 1 {
		t.Errorf("%d bytes with DF: %d errors came back, want 1", size, n)
	}
	if b := d.pending(t); b != nil {
		t.Errorf("%d bytes with DF: refused, and %d bytes arrived all the same", size, len(b))
	}
}

// arrives sends a packet of size bytes and wants it at the other pod, whole.
func (d *datagrams) arrives(t *testing.T, size int, df bool) {
	t.Helper()
	before := d.bigs.Count()
	sent := d.send(t, size, df)
	if err := d.receive(sent); err != nil {
		t.Errorf("%d bytes, DF %t: %v", size, df, err)
	}
	if n := d.bigs.Count() - before; n != 0 {
		t.Errorf("%d bytes, DF %t: %d errors came back, want none", size, df, n)
	}
}

func (d *datagrams) receive(want []byte) error {
	if err := d.rx.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 65536)
	n, from, err := d.rx.ReadFromUDPAddrPort(buf)
	if err != nil {
		return fmt.Errorf("did not arrive: %w", err)
	}
	if !bytes.Equal(buf[:n], want) {
		return fmt.Errorf("%d bytes arrived, or other ones; %d were sent", n, len(want))
	}
	a := from.Addr().Unmap()
	if d.to.Detoured() { // the agent there sends on
		if a != bridgeOf(d.to.Node, a.Is4()) {
			return fmt.Errorf("arrived from %s, not from the agent", a)
		}
	} else if a != d.from.IP && a != d.from.IP6 {
		return fmt.Errorf("arrived from %s, not from the pod", a)
	}
	return nil
}

// pending returns a datagram that has arrived already; nil when none has.
func (d *datagrams) pending(t *testing.T) []byte {
	t.Helper()
	if err := d.rx.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, _, err := d.rx.ReadFromUDPAddrPort(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// ownNode accepts the addresses of the pod bridge of the sender's node: the
// kernel there has refused the packet.
func (d *datagrams) ownNode(a netip.Addr) bool { return a == bridgeOf(d.from.Node, a.Is4()) }

// TestDatagramTooBig: a datagram that the way cannot carry is refused by the
// sender's own node, which knows its domain's part of the way, and without DF
// it arrives in fragments. On smaller links the path's MTU is found by probes,
// and what exceeds it is carried all the same: see TestTCPOverSmallLinks and
// the fabric's TestCarry.
func TestDatagramTooBig(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  lab.Options
		// The effective MTU of both families, from a plain node and between
		// the gateway nodes.
		plain4, plain6, gateway4, gateway6 int
	}{
		{"LAN 1500", lab.Options{}, 1360, 1360, 1408, 1408},
	} {
		t.Run(tt.name, func(t *testing.T) {
			topo := mtuLab(t, tt.opt)
			awaitMTU(t, topo, tt.gateway4)
			cloud, edge := topo.Domains[0].Nodes, topo.Domains[1].Nodes
			for i, way := range []struct {
				name     string
				from, to *lab.Pod
				mtu      [2]int
			}{
				{"plain to plain", edge[1].Pods[0], cloud[1].Pods[0], [2]int{tt.plain4, tt.plain6}},
				{"plain to gateway", cloud[1].Pods[0], edge[0].Pods[0], [2]int{tt.plain4, tt.plain6}},
				{"gateway to gateway", edge[0].Pods[0], cloud[0].Pods[0], [2]int{tt.gateway4, tt.gateway6}},
				{"hub to edge", cloud[0].Pods[0], edge[0].Pods[0], [2]int{tt.gateway4, tt.gateway6}},
			} {
				if way.from.Detoured() {
					lab.LeftOut(t, "what a pod of that node sends with DF: nothing carries it")
					continue
				}
				for v6, mtu := range way.mtu {
					t.Run(fmt.Sprintf("%s IPv%d", way.name, 4+2*v6), func(t *testing.T) {
						d := newDatagrams(t, way.from, way.to, v6 == 1, mtuPort+uint16(i))
						if v6 == 0 {
							d.arrives(t, 1500, false) // while the sender knows no path MTU
						}
						d.refused(t, 1500, mtu, d.ownNode) // 1472 bytes over IPv4
						d.arrives(t, mtu, true)
						if mtu > 1280 || v6 == 0 {
							d.refused(t, mtu+1, mtu, d.ownNode)
						}
						d.arrives(t, 1500, false)
					})
				}
			}
		})
	}
}
