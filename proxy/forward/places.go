package forward

import (
	"net/netip"
	"sync"
)

// places bounds what is open, in all and for one source.
type places struct {
	max int

	mu      sync.Mutex
	taken   int
	sources map[netip.Addr]int
}

// room is what became of asking for a place.
type room uint8

const (
	roomYes room = iota
	roomFull
	roomSource // this source has too many
)

// take asks for a place; one that was given is given back with release.
func (p *places) take(source netip.Addr) room {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.taken >= p.max:
		return roomFull
	case p.sources[source] >= perSource(p.max):
		return roomSource
	}
	if p.sources == nil {
		p.sources = make(map[netip.Addr]int)
	}
	p.taken++
	p.sources[source]++
	return roomYes
}

func (p *places) release(source netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.sources[source]--; p.sources[source] == 0 {
		delete(p.sources, source)
	}
}

func (p *places) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// refuse counts why there was no place.
func (f *Forwarder) refuse(r room) {
	if r == roomSource {
		f.count.fullSource.Add(1)
	} else {
		f.count.full.Add(1)
	}
}
