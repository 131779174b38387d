//go:build linux

package lab

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCaptureCountsEveryPacket(t *testing.T) {
	_, nodes := twoNodes(t, nil)
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	if _, err := b.Serve(7000); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(b.IP, 7000)
	c, err := nodes[0].Capture("eth0", func(f Frame) bool {
		return f.Outgoing && f.Protocol == unix.IPPROTO_UDP && f.Src == a.IP && f.Dst == b.IP && f.DstPort == 7000
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	for range n {
		if _, err := a.EchoUDP(ctxFor(t, 5*time.Second), to, 500); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Count(); got != n || c.Lost() != 0 {
		t.Errorf("%d packets, %d lost; want %d, 0", got, c.Lost(), n)
	}
	path := filepath.Join(t.TempDir(), "c.pcap")
	c.Close()
	if err := c.WritePCAP(path); err != nil {
		t.Fatal(err)
	}
	checkPCAP(t, path, n, 14+20+8+500)
}

// checkPCAP parses the file by the format's description.
func checkPCAP(t *testing.T, path string, frames, size int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != 0xa1b23c4d || le.Uint16(b[4:]) != 2 || le.Uint16(b[6:]) != 4 || le.Uint32(b[20:]) != 1 {
		t.Errorf("pcap header % x", b[:24])
	}
	n := 0
	for b = b[24:]; len(b) > 0; n++ {
		kept, whole := le.Uint32(b[8:]), le.Uint32(b[12:])
		if int(whole) != size || kept != captureSnap {
			t.Fatalf("frame %d: %d of %d bytes, want %d of %d", n, kept, whole, captureSnap, size)
		}
		b = b[16+kept:]
	}
	if n != frames {
		t.Errorf("%d frames in the file, want %d", n, frames)
	}
}

func TestCaptureKeepsTheNewest(t *testing.T) {
	c := &Capture{}
	c.ring = make([]Frame, captureFrames)
	for i := range c.ring {
		c.ring[i].Len = i
	}
	c.ring[0].Len, c.ring[1].Len, c.next = captureFrames, captureFrames+1, 2
	c.closed = true
	frames := c.Frames()
	if frames[0].Len != 2 || frames[len(frames)-1].Len != captureFrames+1 {
		t.Errorf("from %d to %d", frames[0].Len, frames[len(frames)-1].Len)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(append(make([]byte, 12), 0x08, 0x00, 0x4f, 0, 0, 60), true)
	f.Add(append([]byte{0x60}, make([]byte, 60)...), false)
	f.Fuzz(func(t *testing.T, data []byte, ethernet bool) {
		fr := Frame{Data: data}
		fr.parse(ethernet)
		if fr.Src.IsValid() != fr.Dst.IsValid() {
			t.Errorf("source %s, destination %s", fr.Src, fr.Dst)
		}
	})
}

func FuzzICMPError(f *testing.F) {
	f.Add(append([]byte{3, 4, 0, 0, 0, 0, 5, 20, 0x45}, make([]byte, 27)...), false)
	f.Add(append([]byte{2, 0, 0, 0, 0, 0, 5, 20, 0x60}, make([]byte, 47)...), true)
	f.Fuzz(func(t *testing.T, data []byte, v6 bool) {
		from := netip.MustParseAddr("192.0.2.1")
		if v6 {
			from = netip.MustParseAddr("2001:db8::1")
		}
		if e, ok := parseICMPError(from, data); ok && e.Dst.Is4() == v6 {
			t.Errorf("from %s about %s", from, e.Dst)
		}
	})
}

func FuzzAnswerDNS(f *testing.F) {
	table := map[string][]netip.Addr{"a.": {netip.MustParseAddr("192.0.2.1")}}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, query []byte) {
		answer, err := answerDNS(query, table)
		if err == nil && (len(answer) < 12 || answer[0] != query[0] || answer[2]&0x80 == 0) {
			t.Errorf("answer % x to % x", answer, query)
		}
	})
}

func TestSnapshot(t *testing.T) {
	_, nodes := twoNodes(t, func(cfg *NodeConfig) { cfg.ForwardDrop = true; cfg.Masquerade = MasqLeavingNode })
	n := nodes[0]
	snap := func() []string {
		s, err := n.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := snap()
	all := strings.Join(before, "\n")
	for _, want := range []string{"link eth0 ", "addr eth0 192.168.1.10/24", "route 10.244.2.0/24", "rule family 2 priority 32766", "chain FORWARD type filter hook 2 priority 0 policy 0", "masq{"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	// Traffic changes nothing.
	if _, err := nodes[1].Pods[0].Serve(7000); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{nodes[1].Pods[0].IP, nodes[1].Pods[0].IP6} {
		if _, err := n.Pods[0].Transfer(ctxFor(t, 5*time.Second), netip.AddrPortFrom(to, 7000), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, snap()); diff != "" {
		t.Errorf("traffic changed the state:\n%s", diff)
	}
	for _, tt := range []struct {
		name   string
		change func()
		want   string
	}{
		{"route", func() { n.Route(Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Dev: "eth0"}) }, "route 10.9.0.0/16"},
		{"address", func() { n.AddAddr("lo", netip.MustParsePrefix("10.8.0.1/32")) }, "addr lo 10.8.0.1/32"},
		{"mtu", func() { n.SetMTU("cni0", 1400) }, "link cni0 type bridge mtu 1400"},
		{"sysctl", func() { n.Sysctl("net.ipv4.conf.eth0.rp_filter", "2") }, "sysctl net/ipv4/conf/eth0/rp_filter 2"},
		{"service", func() {
			n.AddService(Service{IP: netip.MustParseAddr("10.96.0.1"), Port: 80, Protocol: TCP, Backends: []netip.AddrPort{netip.MustParseAddrPort("10.244.1.2:80")}})
		}, "chain OUTPUT rule"},
	} {
		old := snap()
		tt.change()
		now := snap()
		i := slices.IndexFunc(now, func(line string) bool {
			return strings.Contains(line, tt.want) && !slices.Contains(old, line)
		})
		if i < 0 {
			t.Errorf("%s: no new line with %q:\n%s", tt.name, tt.want, cmp.Diff(old, now))
		}
	}
}
