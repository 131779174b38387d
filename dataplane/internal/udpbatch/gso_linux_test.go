package udpbatch

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGSOPolicy walks through refusals and their end. Time passes by moving the
// start of the Conn's clock.
func TestGSOPolicy(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	full := func(size, n int) run { return run{n: n, size: size, last: size} }
	c := &Conn{start: time.Now()}
	g := &c.gso
	g.init(true)
	check := func(name string, to netip.Addr, size, want int) {
		t.Helper()
		if got := g.run(c, to, size); got != want {
			t.Errorf("%s: run of %d bytes = %d, want %d", name, size, got, want)
		}
	}
	check("small", a, 100, 64)
	check("by bytes", a, 1400, 46)
	check("too big for two", a, 40000, 1)
	check("empty", a, 0, 1)

	g.refused(c, unix.EINVAL, a, full(100, 64))
	check("a kernel that counts the header", a, 100, 63)
	g.refused(c, unix.EINVAL, a, full(1400, 46))
	check("refused size", a, 1400, 1)
	check("above it", a, 1500, 1)
	check("below it", a, 1399, 46)
	check("the same address mapped", netip.AddrFrom16(a.As16()), 1400, 1)
	check("another destination", b, 1400, 46)
	g.refused(c, unix.EMSGSIZE, a, full(1300, 46))
	g.refused(c, unix.EMSGSIZE, a, full(1350, 46))
	check("the smallest refusal counts", a, 1300, 1)
	c.start = c.start.Add(-gsoRetry)
	check("tried again", a, 1400, 46)

	g.refused(c, unix.EIO, a, full(1400, 46))
	check("no checksum offload", b, 100, 1)
	c.start = c.start.Add(-gsoRetry)
	check("offload tried again", b, 100, 63)

	for i := range 2 * maxPaths {
		g.refused(c, unix.EINVAL, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), full(1400, 46))
	}
	if n := len(*g.paths.Load()); n > maxPaths {
		t.Errorf("%d paths remembered, want at most %d", n, maxPaths)
	}

	var none gsoPolicy
	none.init(false)
	if got := none.run(c, a, 100); got != 1 {
		t.Errorf("without UDP_SEGMENT: %d, want 1", got)
	}
}
