package hostnet

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
)

// DefaultRouters returns the next hops of the default routes in the main table,
// IPv4 before IPv6 and the lowest metric first. Link-local IPv6 addresses have
// the name of their link as zone. Routes of links that are down or have no
// carrier do not count, nor do those without a next hop. What cannot be read is
// left out.
func DefaultRouters() []netip.Addr {
	c, err := openRtnl()
	if err != nil {
		return nil
	}
	defer c.close()
	routes, err := c.defaultRoutes()
	if err != nil {
		return nil
	}
	names := map[int]string{}
	if links, err := c.links(); err == nil {
		for i, l := range links {
			names[i] = l.Name
		}
	}
	var out []netip.Addr
	for _, r := range routes {
		via := r.via
		if via.Is6() && via.IsLinkLocalUnicast() {
			if names[r.link] == "" {
				continue // gone meanwhile
			}
			via = via.WithZone(names[r.link])
		}
		if via.IsValid() && !slices.Contains(out, via) {
			out = append(out, via)
		}
	}
	return out
}

// defaultRoute is one way out of the host: a default route has one for each of
// its next hops.
type defaultRoute struct {
	v6     bool
	metric uint32
	via    netip.Addr // zero: on the link
	link   int
	src    netip.Addr // zero: the kernel chooses
	object uint32     // id of a next hop object; zero: none
}

func (r defaultRoute) compare(o defaultRoute) int {
	return cmp.Or(
		rank(r.v6, o.v6),
		cmp.Compare(r.metric, o.metric),
		r.via.Compare(o.via),
		cmp.Compare(r.link, o.link),
		r.src.Compare(o.src),
		cmp.Compare(r.object, o.object),
	)
}

// defaultRoutes lists the default routes of the main table that work, sorted.
func (c *rtnl) defaultRoutes() ([]defaultRoute, error) {
	var out []defaultRoute
	for _, family := range families {
		msgs, err := c.dumpRoutes(family, unix.RT_TABLE_MAIN)
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			rs, _ := decodeDefault(m)
			out = append(out, rs...)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].compare(out[j]) < 0 })
	return slices.Compact(out), nil
}

// decodeDefault reads an RTM_NEWROUTE or RTM_DELROUTE payload; ok is false when
// it is no default route of the main table. Ways without a working link are
// left out.
func decodeDefault(b []byte) (rs []defaultRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return nil, false
	}
	r := defaultRoute{v6: b[0] == unix.AF_INET6}
	dstLen, table, msgType := b[1], uint32(b[4]), b[7]
	flags := binary.NativeEndian.Uint32(b[8:])
	var hops []byte
	for typ, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			table = getU32(v)
		case unix.RTA_PRIORITY:
			r.metric = getU32(v)
		case unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(v)
		case rtaNextHopID:
			r.object = getU32(v)
		case unix.RTA_MULTIPATH:
			hops = v
		default:
			r.readHop(typ, v)
		}
	}
	if dstLen != 0 || table != unix.RT_TABLE_MAIN || flags&unix.RTM_F_CLONED != 0 || msgType != unix.RTN_UNICAST {
		return nil, false
	}
	if hops != nil {
		return r.multipath(hops), true
	}
	if !dead(flags) {
		rs = []defaultRoute{r}
	}
	return rs, true
}

// readHop takes what a next hop can have outside RTA_MULTIPATH or in it.
func (r *defaultRoute) readHop(typ uint16, v []byte) {
	switch {
	case typ == unix.RTA_OIF:
		r.link = int(getU32(v))
	case typ == unix.RTA_GATEWAY:
		r.via, _ = netip.AddrFromSlice(v)
	case typ == unix.RTA_VIA && len(v) > 2: // struct rtvia: a family and an address of it
		r.via, _ = netip.AddrFromSlice(v[2:])
	}
}

// multipath reads an array of struct rtnexthop, each with attributes.
func (r defaultRoute) multipath(b []byte) (rs []defaultRoute) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		hop := r
		hop.link = int(getU32(b[4:]))
		for typ, v := range attrs(b[unix.SizeofRtNexthop:size]) {
			hop.readHop(typ, v)
		}
		if !dead(uint32(b[2])) {
			rs = append(rs, hop)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return rs
}

// dead reports whether the flags of a next hop say that its link is down or has
// no carrier.
func dead(flags uint32) bool { return flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0 }
