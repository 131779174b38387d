package hostnet

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// routeKey is what makes a route unique in its table.
type routeKey struct {
	prefix netip.Prefix
	metric uint32
}

// routeAttrs is the rest of a route. An unreachable one has no other attribute.
type routeAttrs struct {
	unreachable bool
	link        int
	src         netip.Addr
	mtu         int
}

// tableRoute is a route as the kernel lists it.
type tableRoute struct {
	routeKey
	routeAttrs
	protocol uint8
	// exotic says that the route has what ours never have: next hops, a
	// gateway, another type.
	exotic bool
}

// metric6 is what the kernel gives an IPv6 route without metric
// (IP6_RT_PRIO_USER); for IPv4 that is zero.
const metric6 = 1024

// rtaNextHopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNextHopID = 30

// wantRoutes returns the content of our table, given the device's index by
// family. With link 0, which no link has, it holds the unreachable routes only.
func wantRoutes(routes []dataplane.HostRoute, links [2]int, mtu int, src [2]source) map[routeKey]routeAttrs {
	want := make(map[routeKey]routeAttrs, 2*len(routes))
	for _, r := range routes {
		p := r.Prefix.Masked()
		want[routeKey{p, UnreachableMetric}] = routeAttrs{unreachable: true}
		link := links[familyIndex(p.Addr())]
		if link == 0 {
			continue
		}
		a := routeAttrs{link: link, mtu: cmp.Or(r.MTU, mtu)}
		k := routeKey{prefix: p}
		if p.Addr().Is6() {
			k.metric, a.mtu = metric6, routeMTU6(r, mtu)
		}
		if s := src[familyIndex(p.Addr())]; s.local {
			a.src = s.addr
		}
		want[k] = a
	}
	return want
}

// routes lists our table for both families.
func (c *rtnl) routes(table int) ([]tableRoute, error) {
	var out []tableRoute
	for _, family := range families {
		msgs, err := c.dumpRoutes(family, table)
		if err != nil {
			return nil, err
		}
		out = slices.Grow(out, len(msgs))
		for _, m := range msgs {
			if r, ok := decodeRoute(m, table); ok && r.prefix.Addr().Is4() == (family == unix.AF_INET) {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// dumpRoutes returns the RTM_NEWROUTE payloads of a table, and with an old
// kernel those of others.
func (c *rtnl) dumpRoutes(family, table int) ([][]byte, error) {
	msgs, err := dump(func() ([][]byte, error) {
		m := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}}
		return c.do(unix.RTM_GETROUTE, unix.NLM_F_DUMP, m, u32attr(unix.RTA_TABLE, uint32(table)))
	})
	// With strict checking a table that never was is an error.
	if errors.Is(err, unix.ENOENT) || noFamily(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes of table %d: %w", table, err)
	}
	return msgs, nil
}

// decodeRoute reads an RTM_NEWROUTE payload; ok is false when the route is not
// in the table or not a plain one.
func decodeRoute(b []byte, table int) (r tableRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false
	}
	family, dstLen, msgTable, msgType := b[0], int(b[1]), int(b[4]), b[7]
	r.protocol = b[5]
	r.unreachable = msgType == unix.RTN_UNREACHABLE
	r.exotic = msgType != unix.RTN_UNICAST && !r.unreachable
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for typ, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			msgTable = int(getU32(v))
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_PRIORITY:
			r.metric = getU32(v)
		case unix.RTA_OIF:
			r.link = int(getU32(v))
		case unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(v)
		case unix.RTA_METRICS:
			r.mtu = decodeMTU(v)
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, rtaNextHopID:
			r.exotic = true
		}
	}
	r.prefix = netip.PrefixFrom(dst, dstLen)
	if r.unreachable {
		r.routeAttrs = routeAttrs{unreachable: true} // IPv6 lists lo as its link
	}
	return r, msgTable == table && r.prefix.IsValid() && (family == unix.AF_INET) == dst.Is4()
}

func decodeMTU(metrics []byte) int {
	for typ, v := range attrs(metrics) {
		if typ == unix.RTAX_MTU {
			return int(getU32(v))
		}
	}
	return 0
}

// routeMsg encodes a route of our own. The library cannot: its metric is an
// int, too small for ours where that has 32 bits.
func routeMsg(k routeKey, a routeAttrs, protocol uint8, table int) []nl.NetlinkRequestData {
	m := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family:   unix.AF_INET,
		Dst_len:  uint8(k.prefix.Bits()),
		Protocol: protocol,
		Scope:    unix.RT_SCOPE_LINK,
		Type:     unix.RTN_UNICAST,
	}}
	if k.prefix.Addr().Is6() {
		m.Family, m.Scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
	}
	if a.unreachable {
		m.Type, m.Scope = unix.RTN_UNREACHABLE, unix.RT_SCOPE_UNIVERSE
	}
	out := []nl.NetlinkRequestData{
		m,
		u32attr(unix.RTA_TABLE, uint32(table)),
		nl.NewRtAttr(unix.RTA_DST, k.prefix.Addr().AsSlice()),
	}
	if k.metric != 0 {
		out = append(out, u32attr(unix.RTA_PRIORITY, k.metric))
	}
	if a.link != 0 {
		out = append(out, u32attr(unix.RTA_OIF, uint32(a.link)))
	}
	if a.src.IsValid() {
		out = append(out, nl.NewRtAttr(unix.RTA_PREFSRC, a.src.AsSlice()))
	}
	if a.mtu != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		metrics.AddRtAttr(unix.RTAX_MTU, binary.NativeEndian.AppendUint32(nil, uint32(a.mtu)))
		out = append(out, metrics)
	}
	return out
}

// syncRoutes makes our routes in our table equal to want and returns how many
// changes that took. A route that cannot be installed does not stop the others.
func (c *rtnl) syncRoutes(ctx context.Context, want map[routeKey]routeAttrs) (changes int, err error) {
	have, err := c.routes(Table)
	if err != nil {
		return 0, err
	}
	var errs []error
	change := func(what string, r tableRoute, e error) {
		if r.prefix.Addr().Is6() && noFamily(e) {
			return // a problem names it
		}
		if e != nil && !errors.Is(e, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("%s route %v metric %d: %w", what, r.prefix, r.metric, e))
			return
		}
		changes++
	}
	settled := make(map[routeKey]bool, len(want))
	replace := make(map[routeKey]bool)
	for _, r := range have {
		a, wanted := want[r.routeKey]
		switch {
		case r.protocol != Protocol:
		case wanted && !r.exotic && r.routeAttrs == a && !settled[r.routeKey]:
			settled[r.routeKey] = true
		case wanted && !r.exotic && !replace[r.routeKey] && !settled[r.routeKey]:
			replace[r.routeKey] = true
		default:
			change("delete", r, c.delRoute(r, Table))
		}
	}
	for _, k := range sortedKeys(want) {
		if settled[k] {
			continue
		}
		if ctx.Err() != nil {
			return changes, errors.Join(append(errs, ctx.Err())...)
		}
		flags := unix.NLM_F_ACK | unix.NLM_F_CREATE
		// EXCL keeps our hands off a foreign route of the same key.
		if replace[k] {
			flags |= unix.NLM_F_REPLACE
		} else {
			flags |= unix.NLM_F_EXCL
		}
		_, e := c.do(unix.RTM_NEWROUTE, flags, routeMsg(k, want[k], Protocol, Table)...)
		change("add", tableRoute{routeKey: k}, e)
	}
	return changes, errors.Join(errs...)
}

// delRoute deletes a route as the kernel listed it. Scope and type are left
// open: key and protocol tell it from foreign ones.
func (c *rtnl) delRoute(r tableRoute, table int) error {
	msg := routeMsg(r.routeKey, routeAttrs{link: r.link}, r.protocol, table)
	head := msg[0].(*nl.RtMsg)
	head.Scope, head.Type = unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC
	_, err := c.do(unix.RTM_DELROUTE, unix.NLM_F_ACK, msg...)
	return err
}

// sortedKeys puts the unreachable routes first: a new subnet is closed before
// it is opened.
func sortedKeys(want map[routeKey]routeAttrs) []routeKey {
	keys := make([]routeKey, 0, len(want))
	for k := range want {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := &keys[i], &keys[j]
		return cmp.Or(cmp.Compare(b.metric, a.metric), a.prefix.Compare(b.prefix)) < 0
	})
	return keys
}
