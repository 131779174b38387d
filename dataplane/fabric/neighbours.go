package fabric

import (
	"net/netip"
	"sync"
	"time"
)

const (
	neighbourTTL = time.Minute
	// neighboursMax bounds the table, neighboursPerVTEP what one node can put
	// into it: it has one overlay address, and a second one for a while when
	// its key changes.
	neighboursMax     = 4096
	neighboursPerVTEP = 8
)

// neighbours remembers behind which VTEP an overlay address was seen, so that
// netstack's answers find back to a plain node whose key nobody has told us.
// The zero value is ready. Transit packets never come here.
type neighbours struct {
	mu     sync.RWMutex
	byAddr map[netip.Addr]neighbour
	byVTEP map[netip.Addr][]netip.Addr // at most neighboursPerVTEP each
	swept  time.Time
}

type neighbour struct {
	vtep    netip.Addr
	expires time.Time
}

// learn notes that addr was seen behind vtep. The write lock is taken only for
// what is new, has moved or is half way to its end. It returns false when the
// table is full.
func (n *neighbours) learn(addr, vtep netip.Addr, now time.Time) bool {
	n.mu.RLock()
	old, ok := n.byAddr[addr]
	n.mu.RUnlock()
	if ok && old.vtep == vtep && old.expires.Sub(now) > neighbourTTL/2 {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byAddr == nil {
		n.byAddr = make(map[netip.Addr]neighbour)
		n.byVTEP = make(map[netip.Addr][]netip.Addr)
	}
	old, ok = n.byAddr[addr]
	if !ok || old.vtep != vtep {
		if ok {
			n.removeLocked(addr)
		}
		if !n.makeRoomLocked(vtep, now) {
			return false
		}
		n.byVTEP[vtep] = append(n.byVTEP[vtep], addr)
	}
	n.byAddr[addr] = neighbour{vtep, now.Add(neighbourTTL)}
	return true
}

// lookup returns the VTEP behind which addr was seen in the last minute.
func (n *neighbours) lookup(addr netip.Addr, now time.Time) (vtep netip.Addr, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e, ok := n.byAddr[addr]
	if !ok || now.After(e.expires) {
		return netip.Addr{}, false
	}
	return e.vtep, true
}

// makeRoomLocked makes room for one more address behind vtep. A VTEP with its
// full share loses the address that it used longest ago.
func (n *neighbours) makeRoomLocked(vtep netip.Addr, now time.Time) bool {
	if own := n.byVTEP[vtep]; len(own) >= neighboursPerVTEP {
		oldest := own[0]
		for _, a := range own[1:] {
			if n.byAddr[a].expires.Before(n.byAddr[oldest].expires) {
				oldest = a
			}
		}
		n.removeLocked(oldest)
	}
	if len(n.byAddr) < neighboursMax {
		return true
	}
	// A full table is swept at most once a second, so that a flood of new
	// addresses cannot make every packet walk it.
	if now.Sub(n.swept) < time.Second {
		return false
	}
	n.swept = now
	for a, e := range n.byAddr {
		if now.After(e.expires) {
			n.removeLocked(a)
		}
	}
	return len(n.byAddr) < neighboursMax
}

func (n *neighbours) removeLocked(addr netip.Addr) {
	vtep := n.byAddr[addr].vtep
	delete(n.byAddr, addr)
	own := n.byVTEP[vtep]
	for i, a := range own {
		if a == addr {
			own[i] = own[len(own)-1]
			own = own[:len(own)-1]
			break
		}
	}
	if len(own) == 0 {
		delete(n.byVTEP, vtep)
		return
	}
	n.byVTEP[vtep] = own
}
