package natlab

import (
	"errors"
	"net/netip"
	"time"
)

// RouterConfig describes a router between two networks.
type RouterConfig struct {
	Name            string
	Inside, Outside *Network
	Link            Link           // its access link, on the outside
	Inner           []netip.Prefix // its addresses inside, if anybody is to send to them
	Outer           []netip.Prefix // its addresses outside; the first IPv4 one is what its NAT shows
	NAT             *NAT           // for IPv4; nil: it routes
	// Routed are prefixes inside that the outside network sends here: what
	// has a source in them is never translated.
	Routed []netip.Prefix
	// Firewall admits to Routed only what answers a flow from inside that
	// is not older than 30 s, or 120 s once it was answered.
	Firewall bool
	Blocked  bool // no UDP passes, either way
}

// Router joins an inside network to an outside one: the inside's default
// route, and a NAT, a firewall, or both. Make it with [Lab.Router].
type Router struct {
	lab     *Lab
	cfg     RouterConfig
	in, out *Interface
	nat     *natTable
	fw      *natTable // flows of the firewall: a NAT that keeps addresses
	epoch   int       // counts what ends streams
}

// Router adds a router. Inside has no router yet.
func (l *Lab) Router(cfg RouterConfig) *Router {
	r := &Router{lab: l, cfg: cfg}
	r.in = cfg.Inside.attach(cfg.Name+"/in", r, Link{}, cfg.Inner)
	r.out = cfg.Outside.attach(cfg.Name, r, cfg.Link, cfg.Outer)
	cfg.Inside.gateway = r.in
	for _, p := range cfg.Routed {
		cfg.Outside.routes = append(cfg.Outside.routes, route{p, r.out})
	}
	if cfg.NAT != nil {
		r.nat = newNATTable(*cfg.NAT, l.rand)
	}
	r.fw = newNATTable(NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Conntrack: true}, l.rand)
	return r
}

// Outside returns the router's outer interface.
func (r *Router) Outside() *Interface { return r.out }

// Reboot makes the router forget all mappings and flows. Streams through it end.
func (r *Router) Reboot() {
	r.epoch++
	r.fw.flush()
	if r.nat != nil {
		r.nat.flush()
	}
}

// SetNAT replaces the NAT by one of another kind, without mappings. Streams
// through the router end.
func (r *Router) SetNAT(cfg NAT) {
	r.nat = newNATTable(cfg, r.lab.rand)
	r.epoch++
}

// SetOuter gives the router other addresses outside, as a provider does. All
// mappings are gone, and streams through it end.
func (r *Router) SetOuter(prefixes ...netip.Prefix) {
	r.out.setAddrs(prefixes)
	r.Reboot()
}

// SetBlocked makes the router drop all UDP, or none. Mappings age meanwhile.
func (r *Router) SetBlocked(blocked bool) { r.cfg.Blocked = blocked }

func (r *Router) receive(in *Interface, p *packet) {
	switch {
	case r.cfg.Blocked:
		r.lab.drop(r.cfg.Name, "udp blocked", p)
	case in == r.in:
		r.outbound(p)
	default:
		r.inbound(p)
	}
}

func (r *Router) outbound(p *packet) {
	now := r.lab.now
	hairpin := r.isOuter(p.dst.Addr())
	// A packet that dies here never reaches the place where a mapping is made.
	if p.ttl--; p.ttl <= 0 && !hairpin {
		r.lab.drop(r.cfg.Name, "ttl", p)
		return
	}
	if r.nat == nil || p.src.Addr().Is6() || r.routed(p.src.Addr()) {
		if r.cfg.Firewall {
			r.fw.out(now, p.src, p.dst)
		}
		r.forward(r.out, p)
		return
	}
	if hairpin && !r.nat.cfg.Hairpin {
		r.lab.drop(r.cfg.Name, "nat: no hairpinning", p)
		return
	}
	outer, ok := r.out.addr(false)
	port, free := uint16(0), false
	if ok {
		port, free = r.nat.out(now, p.src, p.dst)
	}
	if !free {
		r.lab.drop(r.cfg.Name, "nat: no port", p)
		return
	}
	p.src = netip.AddrPortFrom(outer, port)
	if hairpin {
		r.inbound(p)
		return
	}
	r.forward(r.out, p)
}

func (r *Router) inbound(p *packet) {
	now := r.lab.now
	if r.isOuter(p.dst.Addr()) {
		if r.nat == nil || p.dst.Addr().Is6() {
			r.lab.drop(r.cfg.Name, "for the router itself", p)
			return
		}
		inside, refused := r.nat.in(now, p.src, p.dst.Port())
		if refused != "" {
			r.lab.drop(r.cfg.Name, refused, p)
			return
		}
		p.dst = inside
	} else if r.cfg.Firewall && !r.admits(now, p) {
		r.lab.drop(r.cfg.Name, "firewall", p)
		return
	}
	if p.ttl--; p.ttl <= 0 {
		r.lab.drop(r.cfg.Name, "ttl", p)
		return
	}
	r.forward(r.in, p)
}

// admits says whether the packet answers a flow from inside.
func (r *Router) admits(now time.Time, p *packet) bool {
	f := r.fw.flow(now, flowKey{p.dst, p.src})
	if f == nil {
		return false
	}
	f.replied = true
	r.fw.refresh(now, f)
	return true
}

// forward sends the packet on, or tells its sender that it is too big.
func (r *Router) forward(out *Interface, p *packet) {
	err, tooBig := errors.AsType[*TooBigError](out.net.transmit(out, p))
	if s := p.origin; tooBig && s.tooBig != nil {
		dst := p.dst
		r.lab.After(out.net.cfg.Link.Latency, func() {
			if !s.host.down {
				s.tooBig(r.lab.now, dst, err.MTU)
			}
		})
	}
}

func (r *Router) isOuter(a netip.Addr) bool {
	for _, p := range r.out.prefixes {
		if p.Addr() == a {
			return true
		}
	}
	return false
}

func (r *Router) routed(a netip.Addr) bool {
	for _, p := range r.cfg.Routed {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
