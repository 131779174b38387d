package hostnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// newHostNS moves the test's goroutine, for the rest of its life, into a new
// network namespace that looks like a node: lo, and eth0 with an address and the
// default route. It returns a descriptor of the namespace.
func newHostNS(t *testing.T) int {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		skip(t, "no permission to make a network namespace: "+err.Error())
	}
	fd := thisNS(t)
	up(t, "lo")
	addVeth(t, "eth0", "wan0")
	addAddr(t, "eth0", "192.0.2.10/24")
	addAddr(t, "eth0", "2001:db8::10/64")
	up(t, "wan0")
	for _, gw := range []string{"192.0.2.1", "2001:db8::1"} {
		must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw), LinkIndex: index(t, "eth0")}))
	}
	setSysctl(t, "1", "net/ipv4/ip_forward")
	setSysctl(t, "1", "net/ipv6/conf/all/forwarding")
	return fd
}

func thisNS(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// enter moves the goroutine, for the rest of its life, into a namespace.
func enter(fd int) error {
	runtime.LockOSThread()
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func index(t *testing.T, link string) int {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	return l.Attrs().Index
}

func up(t *testing.T, link string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.LinkSetUp(l))
}

func addVeth(t *testing.T, a, b string) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a, MTU: 1500, TxQLen: 1000}, PeerName: b}
	must(t, netlink.LinkAdd(v))
	up(t, a)
}

func addAddr(t *testing.T, link, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, err)
	a.Flags |= unix.IFA_F_NODAD
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.AddrAdd(l, a))
}

func setSysctl(t *testing.T, value, path string) {
	t.Helper()
	must(t, writeSysctl(value, path))
}

// addBridge adds what a CNI gives a node: a bridge with the first address of
// each pod subnet.
func addBridge(t *testing.T) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}))
	up(t, "cni0")
	addAddr(t, "cni0", "10.10.0.1/24")
	addAddr(t, "cni0", "fd10:10::1/64")
}

// addPod makes a namespace behind cni0 and returns its descriptor.
func addPod(t *testing.T, host int) int {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vethpod"}, PeerName: "poddev"}))
	l, err := netlink.LinkByName("vethpod")
	must(t, err)
	bridge, err := netlink.LinkByName("cni0")
	must(t, err)
	must(t, netlink.LinkSetMaster(l, bridge))
	up(t, "vethpod")
	peer, err := netlink.LinkByName("poddev")
	must(t, err)
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	pod := thisNS(t)
	must(t, unix.Setns(host, unix.CLONE_NEWNET))
	must(t, netlink.LinkSetNsFd(peer, pod))
	must(t, unix.Setns(pod, unix.CLONE_NEWNET))
	addAddr(t, "poddev", "10.10.0.7/24")
	addAddr(t, "poddev", "fd10:10::7/64")
	up(t, "poddev")
	for _, gw := range []string{"10.10.0.1", "fd10:10::1"} {
		must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw), LinkIndex: index(t, "poddev")}))
	}
	must(t, unix.Setns(host, unix.CLONE_NEWNET))
	return pod
}

// addTUN opens a persistent TUN without offloads; the test is the agent behind
// it.
func addTUN(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		skip(t, "no TUN: "+err.Error())
	}
	ifr, err := unix.NewIfreq(name)
	must(t, err)
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		skip(t, "no TUN: "+err.Error())
	}
	must(t, unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	t.Cleanup(func() { f.Close() })
	return f
}

// udpPacket is what the tests look at in a packet.
type udpPacket struct {
	src, dst netip.AddrPort
	raw      []byte
}

// readUDP returns the next UDP packet from the TUN, skipping what the kernel
// sends by itself.
func readUDP(t *testing.T, tun *os.File) udpPacket {
	t.Helper()
	p, err := nextUDP(tun, 5*time.Second)
	if err != nil {
		t.Fatalf("no packet on the TUN: %v", err)
	}
	return p
}

func nextUDP(tun *os.File, wait time.Duration) (udpPacket, error) {
	_ = tun.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 65536)
	for {
		n, err := tun.Read(buf)
		if err != nil {
			return udpPacket{}, err
		}
		if p, ok := parseUDP(buf[:n]); ok {
			return p, nil
		}
	}
}

func parseUDP(b []byte) (p udpPacket, ok bool) {
	addrAt, size, head := 12, 4, 20
	switch {
	case len(b) >= 28 && b[0] == 0x45 && b[9] == unix.IPPROTO_UDP:
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		addrAt, size, head = 8, 16, 40
	default:
		return p, false
	}
	src, _ := netip.AddrFromSlice(b[addrAt : addrAt+size])
	dst, _ := netip.AddrFromSlice(b[addrAt+size : addrAt+2*size])
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[head:]))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[head+2:]))
	p.raw = slices.Clone(b)
	return p, true
}

// answer sends the packet back: swapping addresses and ports keeps both
// checksums right.
func answer(t *testing.T, tun *os.File, p udpPacket) {
	t.Helper()
	b := slices.Clone(p.raw)
	at, size, head := 12, 4, 20
	if b[0]>>4 == 6 {
		at, size, head = 8, 16, 40
	}
	copy(b[at:], p.raw[at+size:at+2*size])
	copy(b[at+size:], p.raw[at:at+size])
	copy(b[head:], p.raw[head+2:head+4])
	copy(b[head+2:], p.raw[head:head+2])
	_, err := tun.Write(b)
	must(t, err)
}

// inNS runs f in a namespace, on a thread of its own.
func inNS(fd int, f func() error) error {
	done := make(chan error)
	go func() {
		if err := enter(fd); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// openUDP opens a UDP socket in a namespace, bound to local, which may be the
// zero AddrPort. The socket stays there whatever thread uses it.
func openUDP(t *testing.T, ns int, local netip.AddrPort, to string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	must(t, inNS(ns, func() (err error) {
		var laddr *net.UDPAddr
		if local.IsValid() {
			laddr = net.UDPAddrFromAddrPort(local)
		}
		conn, err = net.DialUDP("udp", laddr, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, c *net.UDPConn) netip.AddrPort {
	t.Helper()
	_, err := c.Write([]byte("ping"))
	must(t, err)
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// expectAnswer fails unless the socket gets "ping" back.
func expectAnswer(t *testing.T, c *net.UDPConn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("answer %q, %v; want ping", buf[:n], err)
	}
}

// testState is a node's state with one remote subnet per family.
func testState() State {
	return State{
		Subnets: prefixes("10.10.0.0/24", "fd10:10::/64"),
		Routes: []dataplane.HostRoute{
			{Prefix: netip.MustParsePrefix("10.20.0.0/16"), MTU: 1360},
			{Prefix: netip.MustParsePrefix("fd10:20::/48"), MTU: 1200},
		},
		MTU: 1408,
	}
}

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func newHost(t *testing.T, cfg Config) *Host {
	t.Helper()
	h, err := New(cfg)
	must(t, err)
	return h
}

// apply fails on an error and on any problem that is not in want.
func apply(t *testing.T, h *Host, s State, want ...string) []Problem {
	t.Helper()
	problems, err := h.Apply(context.Background(), s)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	var names []string
	for _, p := range problems {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, want) {
		t.Fatalf("Apply: problems %v, want names %v", problems, want)
	}
	return problems
}

// hostDump is everything that Apply could touch, as text.
func hostDump(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	links, err := netlink.LinkList()
	must(t, err)
	c, err := openRtnl()
	must(t, err)
	defer c.close()
	for _, l := range links {
		a := l.Attrs()
		conf, err := c.deviceConf(a.Index)
		must(t, err)
		fmt.Fprintf(&b, "link %s %s mtu %d up %t %+v\n", a.Name, l.Type(), a.MTU, a.RawFlags&unix.IFF_UP != 0, conf)
	}
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	must(t, err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() { // these come when they like
			fmt.Fprintf(&b, "addr %v\n", a.IPNet)
		}
	}
	for _, family := range families {
		rules, err := netlink.RuleList(family)
		must(t, err)
		for _, r := range rules {
			fmt.Fprintf(&b, "rule family %d protocol %d mark %d %v\n", family, r.Protocol, r.Mark, r)
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		must(t, err)
		for _, r := range routes {
			// The local table follows the addresses, for IPv6 with a delay.
			if r.Table == unix.RT_TABLE_LOCAL || r.Dst != nil && (r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast()) {
				continue
			}
			fmt.Fprintf(&b, "route table %d %v dev %d type %d protocol %d metric %d src %v mtu %d\n",
				r.Table, r.Dst, r.LinkIndex, r.Type, r.Protocol, uint32(r.Priority), r.Src, r.MTU)
		}
	}
	return b.String() + nftDump(t)
}

func nftDump(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	c, err := nftables.New()
	must(t, err)
	tables, err := c.ListTables()
	must(t, err)
	for _, tb := range tables {
		fmt.Fprintf(&b, "table %d %s\n", tb.Family, tb.Name)
		sets, err := c.GetSets(tb)
		must(t, err)
		for _, s := range sets {
			s.Table = tb
			elements, err := c.GetSetElements(s)
			must(t, err)
			writeSet(&b, s.Name, elements)
		}
		chains, err := c.ListChainsOfTableFamily(tb.Family)
		must(t, err)
		for _, ch := range chains {
			if ch.Table.Name != tb.Name {
				continue
			}
			writeChain(&b, ch)
			rules, err := c.GetRules(tb, ch)
			must(t, err)
			for _, r := range rules {
				fmt.Fprintf(&b, "  %s # %s\n", ruleText(r.Exprs), commentOf(r.UserData))
			}
		}
	}
	return b.String()
}

// addChain adds a base chain of another program, with its rules.
func addChain(t *testing.T, family nftables.TableFamily, table, name string, typ nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority, policy nftables.ChainPolicy, rules ...[]expr.Any) *nftables.Chain {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	tb := c.AddTable(&nftables.Table{Name: table, Family: family})
	ch := c.AddChain(&nftables.Chain{Name: name, Table: tb, Type: typ, Hooknum: hook, Priority: &prio, Policy: &policy})
	for _, r := range rules {
		c.AddRule(&nftables.Rule{Table: tb, Chain: ch, Exprs: r})
	}
	must(t, c.Flush())
	return ch
}

var errNoNFT = fmt.Errorf("no nftables here: %w", unix.EPROTONOSUPPORT)
