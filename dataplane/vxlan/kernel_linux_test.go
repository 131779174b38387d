package vxlan

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"corax/dataplane"
)

const ravenMTU = 1400

// scene is our Endpoint in one namespace and a node with a kernel VXLAN device,
// set up as Raven sets up raven0, in another.
type scene struct {
	ours, theirs       *namespace
	ourNode, theirNode netip.Addr
	ourPod, theirPod   netip.Addr
	e                  *Endpoint
	pod                *pod
}

type sceneConfig struct {
	v6 bool // the underlay
	// arp leaves out the kernel's permanent neighbour entry.
	arp bool
	// checksum makes the kernel fill in outer UDP checksums.
	checksum bool
}

func newScene(t *testing.T, cfg sceneConfig) *scene {
	s := &scene{ours: newNamespace(t), theirs: newNamespace(t)}
	s.ourNode, s.theirNode = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	bits := 24
	if cfg.v6 {
		s.ourNode, s.theirNode = netip.MustParseAddr("fd00:9::1:1"), netip.MustParseAddr("fd00:9::1:2")
		bits = 64
	}
	s.ourPod, s.theirPod = netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.2.5")
	s.ours.do("veth", func() error {
		return errors.Join(
			netlink.LinkAdd(&netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: "under0", MTU: 1500}, PeerName: "under1",
				PeerNamespace: netlink.NsFd(s.theirs.fd),
			}),
			up("under0", netip.PrefixFrom(s.ourNode, bits)))
	})
	s.theirs.do("veth", func() error {
		return errors.Join(up("lo", netip.PrefixFrom(s.theirPod, 32)), up("under1", netip.PrefixFrom(s.theirNode, bits)))
	})
	s.theirs.do("kernel vxlan device", func() error { return s.raven0(cfg) })

	s.pod = newPod(t, s.ourPod)
	s.ours.do("endpoint", func() (err error) {
		s.e, err = New(Config{Addr: s.ourNode, VNI: DefaultVNI, Receive: s.pod})
		return err
	})
	s.e.SetVTEPs([]dataplane.VTEP{{Node: "kernel", Addr: s.theirNode, Sources: []netip.Prefix{netip.PrefixFrom(s.theirPod, 24).Masked()}}})
	newTestStack(t, s.e.Link(), segmentPrefix, SegmentPrefix(s.ourNode))
	run(t, s.e)
	s.pod.forward(t, s.e, s.theirNode)
	return s
}

func up(name string, p netip.Prefix) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// raven0 does what Raven's route driver does on a node.
func (s *scene) raven0(cfg sceneConfig) error {
	parent, err := netlink.LinkByName("under1")
	if err != nil {
		return err
	}
	mac := NodeMAC(s.theirNode)
	dev := &netlink.Vxlan{
		LinkAttrs:      netlink.LinkAttrs{Name: "raven0", HardwareAddr: mac[:], MTU: ravenMTU},
		VxlanId:        int(DefaultVNI),
		VtepDevIndex:   parent.Attrs().Index,
		Group:          s.ourNode.AsSlice(),
		Port:           DefaultPort,
		Age:            300,
		UDPCSum:        cfg.checksum,
		UDP6ZeroCSumTx: !cfg.checksum,
		UDP6ZeroCSumRx: true,
	}
	if err := netlink.LinkAdd(dev); err != nil {
		return err
	}
	segment, err := netlink.ParseAddr(SegmentPrefix(s.theirNode).String())
	if err != nil {
		return err
	}
	segment.Scope = unix.RT_SCOPE_LINK
	if err := errors.Join(netlink.AddrAdd(dev, segment), netlink.LinkSetUp(dev)); err != nil {
		return err
	}
	ours := NodeMAC(s.ourNode)
	errs := []error{netlink.NeighSet(&netlink.Neigh{
		LinkIndex: dev.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		IP: s.ourNode.AsSlice(), HardwareAddr: ours[:],
	})}
	if !cfg.arp {
		errs = append(errs, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: dev.Index, State: netlink.NUD_PERMANENT,
			IP: SegmentAddr(s.ourNode).AsSlice(), HardwareAddr: ours[:],
		}))
	}
	errs = append(errs, netlink.RouteAdd(&netlink.Route{
		LinkIndex: dev.Index, Dst: ipNet(netip.PrefixFrom(s.ourPod, 24).Masked()), Gw: SegmentAddr(s.ourNode).AsSlice(),
		Flags: int(netlink.FLAG_ONLINK), Src: s.theirPod.AsSlice(),
	}))
	return errors.Join(errs...)
}

func TestKernelInterop(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  sceneConfig
	}{
		{"v4 underlay, zero checksum", sceneConfig{}},
		{"v4 underlay, checksum", sceneConfig{checksum: true}},
		{"v6 underlay, zero checksum", sceneConfig{v6: true}},
		{"v6 underlay, checksum", sceneConfig{v6: true, checksum: true}},
		{"no permanent neighbour", sceneConfig{arp: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.cfg)
			t.Run("ping pod", func(t *testing.T) { s.ping(t, s.ourPod) })
			t.Run("ping segment address", func(t *testing.T) { s.ping(t, SegmentAddr(s.ourNode)) })
			t.Run("udp", s.udp)
			t.Run("tcp to us", s.tcpIn)
			t.Run("tcp to them", s.tcpOut)
			if n := s.pod.longest.Load(); n > ravenMTU {
				t.Errorf("the pod got a packet of %d bytes: no link carries that", n)
			}
			st := s.e.Status()
			if len(st) != 1 || st[0].RxBytes == 0 || st[0].TxBytes == 0 || st[0].LastReceive.IsZero() {
				t.Errorf("Status = %+v", st)
			}
		})
	}
}

// ping sends echo requests from the kernel's node.
func (s *scene) ping(t *testing.T, to netip.Addr) {
	var fd int
	s.theirs.do("ping socket", func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	})
	defer unix.Close(fd)
	echo := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, bytes.Repeat([]byte("corax"), 20)...)
	sum := ^checksum.Checksum(echo, 0)
	echo[2], echo[3] = byte(sum>>8), byte(sum)
	if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("no echo reply from %s: %v; %s", to, err, s.drops())
		}
		if b := buf[20:n]; b[0] == 0 && bytes.Equal(b[4:], echo[4:]) {
			return
		}
	}
}

func (s *scene) drops() string {
	out := ""
	for _, c := range s.e.Counters() {
		if c.Value != 0 {
			out += fmt.Sprintf("%s{%s}=%d ", c.Name, c.Reason, c.Value)
		}
	}
	return out
}

// udp echoes datagrams of every size up to the MTU off our pod.
func (s *scene) udp(t *testing.T) {
	la := fullAddr(netip.AddrPortFrom(s.ourPod, 7))
	srv, err := gonet.DialUDP(s.pod.Stack, &la, nil, s.pod.proto())
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := srv.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = srv.WriteTo(buf[:n], from)
		}
	}()
	var c net.Conn
	s.theirs.do("dial", func() (err error) {
		c, err = net.Dial("udp4", netip.AddrPortFrom(s.ourPod, 7).String())
		return err
	})
	defer c.Close()
	buf := make([]byte, 2000)
	for size := 1; size <= 1372; size += 137 { // 1 is below Ethernet's minimum: padding, if anybody pads
		want := make([]byte, size)
		_, _ = rand.Read(want)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("echo of %d bytes: %d bytes, %v; %s", size, n, err, s.drops())
		}
	}
}

const transfer = 1 << 20

// tcpIn: the kernel's node dials our pod; both send.
func (s *scene) tcpIn(t *testing.T) {
	l := s.pod.listen(t, 80)
	var c net.Conn
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	var err error
	s.theirs.do("dial", func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err = d.Dial("tcp4", netip.AddrPortFrom(s.ourPod, 80).String())
		return nil
	})
	if err != nil {
		t.Fatalf("%v; %s", err, s.drops())
	}
	exchange(t, c, <-accepted)
}

// tcpOut: our pod dials the kernel's node; both send.
func (s *scene) tcpOut(t *testing.T) {
	var l net.Listener
	s.theirs.do("listen", func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(s.theirPod, 81).String())
		return err
	})
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, s.pod.Stack, fullAddr(netip.AddrPortFrom(s.theirPod, 81)), s.pod.proto())
	if err != nil {
		t.Fatalf("%v; %s", err, s.drops())
	}
	exchange(t, c, <-accepted)
}

// exchange sends from both ends at once and compares.
func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	defer a.Close()
	defer b.Close()
	errs := make(chan error, 4)
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		want := make([]byte, transfer)
		_, _ = rand.Read(want)
		_ = ends[0].SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, err := ends[0].Write(want)
			errs <- err
		}()
		go func() {
			got := make([]byte, transfer)
			_, err := io.ReadFull(ends[1], got)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("bytes differ")
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
