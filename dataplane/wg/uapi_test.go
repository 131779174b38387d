package wg

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane"
	"corax/dataplane/key"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

func TestRender(t *testing.T) {
	hexOf := func(k byte) string { return fmt.Sprintf("%02x", k) + strings.Repeat("00", 31) }
	psk := key.PresharedFromSecret([]byte("secret"))
	raw := psk.Bytes()
	a := dataplane.Peer{PublicKey: key.Public{0xa}, AllowedIPs: prefixes("fd00::a/128", "10.1.0.0/16"), Keepalive: 25 * time.Second}
	b := dataplane.Peer{PublicKey: key.Public{0xb}, AllowedIPs: prefixes("fd00::b/128")}
	with := func(p dataplane.Peer, f func(*dataplane.Peer)) dataplane.Peer {
		p.AllowedIPs = slices.Clone(p.AllowedIPs)
		f(&p)
		return p
	}
	for _, c := range []struct {
		name     string
		old, now []dataplane.Peer
		want     string
	}{
		{"nothing", nil, nil, ""},
		{"no change", []dataplane.Peer{a, b}, []dataplane.Peer{a, b}, ""},
		{
			"new peers", nil,
			[]dataplane.Peer{a, with(b, func(p *dataplane.Peer) { p.Preshared = psk })},
			"public_key=" + hexOf(0xa) + "\nendpoint=peer:" + hexOf(0xa) + "\npersistent_keepalive_interval=25\n" +
				"replace_allowed_ips=true\nallowed_ip=fd00::a/128\nallowed_ip=10.1.0.0/16\n" +
				"public_key=" + hexOf(0xb) + "\npreshared_key=" + fmt.Sprintf("%x", raw) + "\nendpoint=peer:" + hexOf(0xb) +
				"\npersistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip=fd00::b/128\n",
		},
		{
			"subnet moves: the new owner first",
			[]dataplane.Peer{a, b},
			[]dataplane.Peer{
				with(a, func(p *dataplane.Peer) { p.AllowedIPs = prefixes("fd00::a/128") }),
				with(b, func(p *dataplane.Peer) { p.AllowedIPs = append(p.AllowedIPs, a.AllowedIPs[1]) }),
			},
			"public_key=" + hexOf(0xb) + "\nupdate_only=true\nallowed_ip=10.1.0.0/16\npersistent_keepalive_interval=0\n",
		},
		{
			"subnet lost",
			[]dataplane.Peer{a, b},
			[]dataplane.Peer{with(a, func(p *dataplane.Peer) { p.AllowedIPs = prefixes("fd00::a/128") }), b},
			"public_key=" + hexOf(0xa) + "\nupdate_only=true\npersistent_keepalive_interval=25\nallowed_ip=-10.1.0.0/16\n",
		},
		{
			"peer leaves, its subnet moves",
			[]dataplane.Peer{a, b},
			[]dataplane.Peer{with(b, func(p *dataplane.Peer) { p.AllowedIPs = append(p.AllowedIPs, a.AllowedIPs[1]) })},
			"public_key=" + hexOf(0xb) + "\nupdate_only=true\nallowed_ip=10.1.0.0/16\npersistent_keepalive_interval=0\n" +
				"public_key=" + hexOf(0xa) + "\nupdate_only=true\nremove=true\n",
		},
		{
			"endpoint, names and role are not the device's",
			[]dataplane.Peer{b},
			[]dataplane.Peer{with(b, func(p *dataplane.Peer) { p.Endpoint, p.Node, p.Hub = addr("192.0.2.1:1"), "n", true })},
			"",
		},
		{
			"keepalive in parts of a second, key taken away",
			[]dataplane.Peer{with(a, func(p *dataplane.Peer) { p.Preshared = psk })},
			[]dataplane.Peer{with(a, func(p *dataplane.Peer) { p.Keepalive = 100 * time.Millisecond })},
			"public_key=" + hexOf(0xa) + "\nupdate_only=true\npreshared_key=" + strings.Repeat("00", 32) +
				"\npersistent_keepalive_interval=1\n",
		},
		{
			"keepalive off",
			[]dataplane.Peer{a},
			[]dataplane.Peer{with(a, func(p *dataplane.Peer) { p.Keepalive = 0 })},
			"public_key=" + hexOf(0xa) + "\nupdate_only=true\npersistent_keepalive_interval=0\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, string(render(c.old, c.now))); d != "" {
				t.Error(d)
			}
		})
	}
}

// model is a slow and simple device: who owns which prefix, after each line.
type model struct {
	owner map[netip.Prefix]string
	peers map[string]bool
}

// apply runs a request, and calls step after every line.
func (m *model) apply(request []byte, step func()) {
	var peer string
	sc := bufio.NewScanner(bytes.NewReader(request))
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), "=")
		switch name {
		case "public_key":
			peer = value
			m.peers[peer] = true
		case "replace_allowed_ips", "remove":
			for x, o := range m.owner {
				if o == peer {
					delete(m.owner, x)
				}
			}
			if name == "remove" {
				delete(m.peers, peer)
			}
		case "allowed_ip":
			if text, ok := strings.CutPrefix(value, "-"); ok {
				if x := netip.MustParsePrefix(text); m.owner[x] == peer {
					delete(m.owner, x)
				}
			} else {
				m.owner[netip.MustParsePrefix(value)] = peer
			}
		}
		step()
	}
}

// TestRenderModel applies random changes to the model: the result must be what
// was asked for, and a prefix that some peer has before and after must have an
// owner all the time.
func TestRenderModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := &model{owner: make(map[netip.Prefix]string), peers: make(map[string]bool)}
	var old []dataplane.Peer
	for range 2000 {
		now := randomPeers(rng)
		kept := make(map[netip.Prefix]bool)
		for _, p := range now {
			for _, x := range p.AllowedIPs {
				if _, ok := m.owner[x]; ok {
					kept[x] = true
				}
			}
		}
		m.apply(render(old, now), func() {
			for x := range kept {
				if _, ok := m.owner[x]; !ok {
					t.Fatalf("%v has no owner on its way", x)
				}
			}
		})
		want := make(map[netip.Prefix]string)
		for _, p := range now {
			for _, x := range p.AllowedIPs {
				want[x] = fmt.Sprintf("%x", p.PublicKey[:])
			}
		}
		if d := cmp.Diff(want, m.owner, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
		if len(m.peers) != len(now) {
			t.Fatalf("%d peers, want %d", len(m.peers), len(now))
		}
		old = now
	}
}

func randomPeers(rng *rand.Rand) []dataplane.Peer {
	var out []dataplane.Peer
	for i := range byte(4) {
		if rng.IntN(4) > 0 {
			out = append(out, dataplane.Peer{PublicKey: key.Public{i + 1}})
		}
	}
	for i := range byte(8) {
		if len(out) == 0 || rng.IntN(4) == 0 {
			continue
		}
		p := &out[rng.IntN(len(out))]
		p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 16))
	}
	return out
}

func TestCheckPeers(t *testing.T) {
	self := key.Public{9}
	got, err := checkPeers(self, []dataplane.Peer{
		{Node: "none"},
		{Node: "self", PublicKey: self},
		{Node: "one", PublicKey: key.Public{1}, AllowedIPs: append(prefixes("10.0.0.1/8", "::ffff:1.2.3.4/128"), netip.Prefix{})},
		{Node: "again", PublicKey: key.Public{1}},
		{Node: "two", PublicKey: key.Public{2}, AllowedIPs: prefixes("10.0.0.0/8", "10.0.0.0/9")},
	})
	want := []dataplane.Peer{
		{Node: "one", PublicKey: key.Public{1}, AllowedIPs: prefixes("10.0.0.0/8")},
		{Node: "two", PublicKey: key.Public{2}, AllowedIPs: prefixes("10.0.0.0/9")},
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	port := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	psk := cmp.Comparer(func(a, b key.Preshared) bool { return a == b })
	if d := cmp.Diff(want, got, same, port, psk); d != "" {
		t.Error(d)
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range []string{"none has no", "self has our own", "again has the", "two: allowed IPs: 10.0.0.0/8 is taken", "not a prefix"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error does not say %q: %v", text, err)
		}
	}
}

func TestParseStats(t *testing.T) {
	k := strings.Repeat("ab", 32)
	text := "private_key=" + k + "\nlisten_port=1\npublic_key=" + k + "\npreshared_key=" + k +
		"\nprotocol_version=1\nendpoint=[2001:db8::1]:4500\nlast_handshake_time_sec=12\nlast_handshake_time_nsec=34\n" +
		"tx_bytes=56\nrx_bytes=78\nallowed_ip=10.0.0.0/8\npublic_key=zz\nrx_bytes=99\n"
	got := parseStats(nil, []byte(text))
	want := []stats{{
		key: key.Public(bytes.Repeat([]byte{0xab}, 32)), endpoint: addr("[2001:db8::1]:4500"), sec: 12, nsec: 34, rx: 78, tx: 56,
	}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add([]byte("public_key=" + strings.Repeat("ab", 32) + "\nendpoint=1.2.3.4:5\nrx_bytes=1\n"))
	f.Add([]byte("public_key=\nendpoint"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, most := len(parseStats(nil, b)), bytes.Count(b, []byte("public_key=")); n > most {
			t.Fatalf("%d peers of %d lines", n, most)
		}
	})
}
