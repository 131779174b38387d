package hostnet

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func ipNet(s string) *net.IPNet {
	_, n, _ := net.ParseCIDR(s)
	return n
}

// accept is a rule `iifname link accept`, as another program writes it.
func accept(link string) []expr.Any {
	return append(ifMatch(expr.MetaKeyIIFNAME, link), &expr.Verdict{Kind: expr.VerdictAccept})
}

func reject() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// masquerade is what flannel and others put at srcnat: own sources are hidden
// wherever they go.
func masquerade(t *testing.T) {
	t.Helper()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		addChain(t, family, "nat", "POSTROUTING", nftables.ChainTypeNAT, nftables.ChainHookPostrouting,
			*nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept, []expr.Any{&expr.Masq{}})
	}
}

// dnat is what kube-proxy does: a Service address becomes a pod's, for packets
// that come in and for those of the host itself.
func dnat(t *testing.T, service, pod netip.AddrPort) {
	t.Helper()
	family, offset, size, proto := nftables.TableFamilyIPv4, uint32(16), uint32(4), uint32(unix.NFPROTO_IPV4)
	if service.Addr().Is6() {
		family, offset, size, proto = nftables.TableFamilyIPv6, 24, 16, unix.NFPROTO_IPV6
	}
	rule := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: service.Addr().AsSlice()},
		&expr.Immediate{Register: 1, Data: pod.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: []byte{byte(pod.Port() >> 8), byte(pod.Port())}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: proto, RegAddrMin: 1, RegProtoMin: 2},
	}
	addChain(t, family, "kube", "services", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, nftables.ChainPolicyAccept, rule)
	addChain(t, family, "kube", "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest, nftables.ChainPolicyAccept, rule)
}

func TestSourceAddresses(t *testing.T) {
	node4, node6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	tests := []struct {
		name    string
		fromPod bool
		bind    netip.AddrPort
		to      string
		want    string
	}{
		{"pod keeps its address and port", true, netip.MustParseAddrPort("10.10.0.7:4321"), "10.20.0.5:53", "10.10.0.7"},
		{"pod keeps its address and port, v6", true, netip.MustParseAddrPort("[fd10:10::7]:4321"), "[fd10:20::5]:53", "fd10:10::7"},
		{"host program gets the route's source", false, netip.AddrPort{}, "10.20.0.5:53", "10.10.0.1"},
		{"host program gets the route's source, v6", false, netip.AddrPort{}, "[fd10:20::5]:53", "fd10:10::1"},
		{"host program bound to the node address", false, netip.AddrPortFrom(node4, 4321), "10.20.0.5:53", "10.10.0.1"},
		{"host program bound to the node address, v6", false, netip.AddrPortFrom(node6, 4321), "[fd10:20::5]:53", "fd10:10::1"},
		{"pod to a Service", true, netip.MustParseAddrPort("10.10.0.7:4321"), "10.96.0.10:53", "10.10.0.7"},
		{"host program to a Service", false, netip.AddrPort{}, "10.96.0.10:53", "10.10.0.1"},
		{"pod to a Service, v6", true, netip.MustParseAddrPort("[fd10:10::7]:4321"), "[fd10:96::10]:53", "fd10:10::7"},
		{"host program to a Service, v6", false, netip.AddrPort{}, "[fd10:96::10]:53", "fd10:10::1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := newHostNS(t)
			addBridge(t)
			pod := addPod(t, host)
			tun := addTUN(t, "corax0")
			masquerade(t)
			dnat(t, netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.20.0.5:5353"))
			dnat(t, netip.MustParseAddrPort("[fd10:96::10]:53"), netip.MustParseAddrPort("[fd10:20::5]:5353"))
			// Strict filters elsewhere, as many distributions have.
			setSysctl(t, "1", "net/ipv4/conf/all/rp_filter")
			apply(t, newHost(t, Config{}), testState())

			ns := host
			if tt.fromPod {
				ns = pod
			}
			conn := openUDP(t, ns, tt.bind, tt.to)
			local := send(t, conn)
			p := readUDP(t, tun)
			if p.src.Addr().String() != tt.want {
				t.Errorf("source on the tunnel %v, want %s", p.src, tt.want)
			}
			if p.src.Port() != local.Port() {
				t.Errorf("source port on the tunnel %d, want %d", p.src.Port(), local.Port())
			}
			if want := netip.MustParseAddrPort(tt.to); want.Addr().String() == "10.96.0.10" && p.dst.String() != "10.20.0.5:5353" {
				t.Errorf("destination on the tunnel %v", p.dst)
			}
			answer(t, tun, p)
			expectAnswer(t, conn)
		})
	}
}

// The control for TestSourceAddresses: without our table the CNI's masquerade
// hides the pod.
func TestMasqueradeHidesPodsWithoutNFT(t *testing.T) {
	host := newHostNS(t)
	addBridge(t)
	pod := addPod(t, host)
	tun := addTUN(t, "corax0")
	addAddr(t, "corax0", "198.51.100.1/32") // what masquerade would pick
	masquerade(t)
	h := newHost(t, Config{})
	h.dialNFT = func() (*nftables.Conn, error) { return nil, errNoNFT }
	apply(t, h, testState(), "nftables")
	send(t, openUDP(t, pod, netip.AddrPort{}, "10.20.0.5:53"))
	if p := readUDP(t, tun); p.src.Addr().String() == "10.10.0.7" {
		t.Error("the pod's address survived without our table: the other tests show nothing")
	}
}

// An address that the host does not have works as source too: conntrack turns
// the answers back.
func TestHostSourceNotLocal(t *testing.T) {
	host := newHostNS(t)
	tun := addTUN(t, "corax0")
	h := newHost(t, Config{HostSource: []netip.Addr{netip.MustParseAddr("10.10.0.99"), netip.MustParseAddr("fd10:10::99")}})
	apply(t, h, testState())
	conn := openUDP(t, host, netip.AddrPort{}, "10.20.0.5:53")
	send(t, conn)
	p := readUDP(t, tun)
	if p.src.Addr().String() != "10.10.0.99" {
		t.Errorf("source on the tunnel %v, want 10.10.0.99", p.src)
	}
	answer(t, tun, p)
	expectAnswer(t, conn)
}

func TestForwardDrop(t *testing.T) {
	tests := []struct {
		name   string
		family nftables.TableFamily
		table  string
		chain  string
		to     string
	}{
		{"nft", nftables.TableFamilyINet, "fw", "fwd", "10.20.0.5:53"},
		{"nft, v6", nftables.TableFamilyINet, "fw", "fwd", "[fd10:20::5]:53"},
		{"iptables-nft", nftables.TableFamilyIPv4, "filter", "FORWARD", "10.20.0.5:53"},
		{"ip6tables-nft", nftables.TableFamilyIPv6, "filter", "FORWARD", "[fd10:20::5]:53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := newHostNS(t)
			addBridge(t)
			pod := addPod(t, host)
			tun := addTUN(t, "corax0")
			h := newHost(t, Config{})
			apply(t, h, testState())
			ch := addChain(t, tt.family, tt.table, tt.chain, nftables.ChainTypeFilter, nftables.ChainHookForward, 0,
				nftables.ChainPolicyDrop, accept("docker0"))
			before := nftDump(t)

			conn := openUDP(t, pod, netip.AddrPort{}, tt.to)
			send(t, conn)
			if p, err := nextUDP(tun, 200*time.Millisecond); err == nil {
				t.Fatalf("%v passed a chain that drops: the test shows nothing", p.src)
			}
			apply(t, h, testState())
			send(t, conn)
			answer(t, tun, readUDP(t, tun))
			expectAnswer(t, conn)

			c, err := nftables.New()
			must(t, err)
			rules, err := c.GetRules(ch.Table, ch)
			must(t, err)
			var comments []string
			for _, r := range rules {
				comments = append(comments, commentOf(r.UserData))
			}
			if !slices.Equal(comments, []string{Comment, Comment, ""}) {
				t.Errorf("rules by comment %q, want ours at the head", comments)
			}
			must(t, removeForward(c, "corax0"))
			if got := nftDump(t); got != before {
				t.Errorf("after removal:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

func TestCommentOf(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"ours", comment("corax"), "corax"},
		{"empty", nil, ""},
		{"other type first", append([]byte{1, 2, 9, 9}, comment("x")...), "x"},
		{"length beyond the end", []byte{0, 200, 'c'}, ""},
		{"one byte", []byte{0}, ""},
		{"no terminator", []byte{0, 2, 'h', 'i'}, "hi"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := commentOf(tt.data); got != tt.want {
				t.Errorf("commentOf(%v) = %q, want %q", tt.data, got, tt.want)
			}
		})
	}
}

func FuzzCommentOf(f *testing.F) {
	f.Add(comment("corax"))
	f.Add([]byte{0, 200, 'c'})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := commentOf(data); len(got) > len(data) {
			t.Errorf("comment of %d bytes from %d", len(got), len(data))
		}
	})
}
