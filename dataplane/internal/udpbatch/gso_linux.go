package udpbatch

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"corax/dataplane"
)

const (
	maxPaths = 256 // destinations with a remembered limit

	gsoRetry = time.Minute // how long a refusal is remembered
)

// gsoPolicy remembers where the kernel refused UDP_SEGMENT. Reading it takes no
// lock.
type gsoPolicy struct {
	segments atomic.Int32 // largest run; 0: the kernel has no UDP_SEGMENT
	offUntil atomic.Int64 // for the socket: nanoseconds since Conn.start

	paths atomic.Pointer[map[netip.Addr]pathLimit] // nil: none; never changed in place
	mu    sync.Mutex                               // for replacing paths
}

// pathLimit says that segments of size bytes or more do not fit the path.
type pathLimit struct {
	size  int
	until int64
}

func (g *gsoPolicy) init(supported bool) {
	if supported {
		g.segments.Store(dataplane.MaxSuperPackets)
	}
}

// run returns how many segments of size bytes may leave for to as one.
func (g *gsoPolicy) run(c *Conn, to netip.Addr, size int) int {
	n := int(g.segments.Load())
	if n == 0 || size == 0 {
		return 1
	}
	off, paths := g.offUntil.Load(), g.paths.Load()
	if off != 0 || paths != nil {
		now := c.since()
		if now < off {
			return 1
		}
		if paths != nil {
			if l, ok := (*paths)[pathKey(to)]; ok && size >= l.size && now < l.until {
				return 1
			}
		}
	}
	return max(1, min(n, dataplane.MaxSuperBytes/size))
}

// refused learns from a refused run.
func (g *gsoPolicy) refused(c *Conn, errno unix.Errno, to netip.Addr, r run) {
	switch errno {
	case unix.EIO: // no transmit checksum offload there, or IPsec
		c.count.gsoNoChecksum.Add(1)
		g.offUntil.Store(c.since() + int64(gsoRetry))
	case unix.EINVAL, unix.EMSGSIZE:
		c.count.gsoSize.Add(1)
		if r.n == dataplane.MaxSuperPackets && r.last == r.size && g.segments.CompareAndSwap(dataplane.MaxSuperPackets, dataplane.MaxSuperPackets-1) {
			// Kernels that count the UDP header refuse 64 full segments. If
			// it was the path's MTU after all the next run tells.
			return
		}
		g.limit(c, pathKey(to), r.size)
	default:
		c.count.gsoOther.Add(1)
	}
}

func (g *gsoPolicy) limit(c *Conn, to netip.Addr, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := c.since()
	next := make(map[netip.Addr]pathLimit)
	if old := g.paths.Load(); old != nil {
		for a, l := range *old {
			if now < l.until && len(next) < maxPaths-1 {
				next[a] = l
			}
		}
	}
	if l, ok := next[to]; ok {
		size = min(size, l.size)
	}
	next[to] = pathLimit{size: size, until: now + int64(gsoRetry)}
	g.paths.Store(&next)
}

func pathKey(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// since is a monotonic clock in nanoseconds.
func (c *Conn) since() int64 { return int64(time.Since(c.start)) }
