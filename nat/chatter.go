package nat

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"corax/dataplane/key"
)

// chatter counts the hellos that went to one peer and came from it. The tunnel's
// counters have them too, but they are said because a path is in use: taken for
// traffic they would keep it in use for ever.
type chatter struct{ sent, received atomic.Uint64 }

// overheard is a hello port that counts.
type overheard struct {
	net.PacketConn
	agent *Agent
}

func (c overheard) of(addr net.Addr) *chatter {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil
	}
	return (*c.agent.chatter.Load())[u.AddrPort().Addr()]
}

func (c overheard) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if x := c.of(from); x != nil && err == nil {
		x.received.Add(1)
	}
	return n, from, err
}

func (c overheard) WriteTo(b []byte, to net.Addr) (int, error) {
	if x := c.of(to); x != nil {
		x.sent.Add(1) // before the tunnel counts it
	}
	return c.PacketConn.WriteTo(b, to)
}

// overhear makes the peers of a plan those whose hellos are counted.
func (a *Agent) overhear(peers map[key.Public]*peer) {
	all := make(map[netip.Addr]*chatter, len(peers))
	for k, p := range peers {
		all[k.Overlay()] = &p.chatter
	}
	a.chatter.Store(&all)
}

// lateFor is how long a hello may take from here to the tunnel's counter, while
// it waits for a session.
const lateFor = 5 * time.Second

// tally tells data packets from hellos in a counter of the tunnel.
type tally struct {
	total, hellos uint64 // at the last look
	owed          uint64 // hellos that the counter has not shown
	at            time.Time
	data          uint64
}

// count returns how many packets of total were no hellos, since the first look.
func (t *tally) count(now time.Time, total, hellos uint64) uint64 {
	if now.Sub(t.at) > lateFor {
		t.owed = 0 // they got lost on the way
	}
	if hellos != t.hellos {
		t.owed += grown(t.hellos, hellos)
		t.at = now
	}
	n := grown(t.total, total)
	known := min(n, t.owed)
	t.owed -= known
	t.data += n - known
	t.total, t.hellos = total, hellos
	return t.data
}
