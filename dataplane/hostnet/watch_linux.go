package hostnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchQuiet is how long after the last event changed is called, so that a burst
// of events costs one Apply.
const watchQuiet = 100 * time.Millisecond

// Groups of nfnetlink (linux/netfilter/nfnetlink.h).
const nfGroupTables = 7 // NFNLGRP_NFTABLES

// Watch calls changed when somebody changed what Apply looks at: our routes,
// rules, device and nftables rules, addresses of the host, MTUs of its links,
// forwarding settings, chains that drop forwarded packets. Bursts are one call,
// at most a second late; Apply's own writes cause one more call that finds
// nothing to do. It blocks until ctx is done and then returns nil. changed is
// never called twice at the same time.
func (h *Host) Watch(ctx context.Context, changed func()) error {
	w := newWatcher(h.name)
	err := w.open()
	if err == nil {
		err = w.run(ctx, func() bool { changed(); return true })
	}
	if err != nil {
		return fmt.Errorf("hostnet: watch: %w", err)
	}
	return nil
}

// watcher picks the events of what Apply looks at.
type watcher struct {
	*events
	device string

	mu    sync.Mutex
	index int32            // of the device; 0 when there is none
	mtus  map[int32]uint32 // by link
}

func newWatcher(device string) *watcher {
	w := &watcher{device: device, mtus: make(map[int32]uint32)}
	w.events = newEvents(watchQuiet, w.concerns)
	return w
}

func (w *watcher) open() error {
	err := w.subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("subscribe to route events: %w", err)
	}
	// Without nftables there is nothing to watch there.
	_ = w.subscribe(unix.NETLINK_NETFILTER, nfGroupTables)
	if err := w.listLinks(); err != nil {
		w.close()
		return err
	}
	return nil
}

// listLinks notes the links that are there, after subscribing, so that no
// change falls between.
func (w *watcher) listLinks() error {
	c, err := openRtnl()
	if err != nil {
		return err
	}
	defer c.close()
	links, err := dump(c.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		w.mtus[int32(a.Index)] = uint32(a.MTU)
		if a.Name == w.device {
			w.index = int32(a.Index)
		}
	}
	return nil
}

// concerns reports whether an event may make Apply do something; it also notes
// MTUs.
func (w *watcher) concerns(m syscall.NetlinkMessage) bool {
	b := m.Data
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		_, ok := decodeRoute(b, Table)
		return ok
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return ruleConcerns(b)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.addrConcerns(b)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.linkConcerns(b, m.Header.Type == unix.RTM_DELLINK)
	case unix.RTM_NEWNETCONF:
		return w.confConcerns(b)
	}
	if m.Header.Type>>8 == unix.NFNL_SUBSYS_NFTABLES {
		return nftConcerns(m.Header.Type&0xff, b)
	}
	return false
}

// ruleConcerns: our table, or our priority. struct fib_rule_hdr has the size of
// rtmsg, and its attributes share numbers with it.
func ruleConcerns(b []byte) bool {
	if len(b) < unix.SizeofRtMsg {
		return false
	}
	for typ, v := range attrs(b[unix.SizeofRtMsg:]) {
		if typ == nl.FRA_TABLE && getU32(v) == Table || typ == nl.FRA_PRIORITY && getU32(v) == RulePriority {
			return true
		}
	}
	return false
}

// addrConcerns ignores link-local addresses, which come and go with every pod,
// and those of the device itself.
func (w *watcher) addrConcerns(b []byte) bool {
	if len(b) < unix.SizeofIfAddrmsg {
		return false
	}
	scope, index := b[3], int32(binary.NativeEndian.Uint32(b[4:]))
	w.mu.Lock()
	defer w.mu.Unlock()
	return scope != unix.RT_SCOPE_LINK && index != w.index
}

// linkConcerns: anything of the device, and other links' MTUs.
func (w *watcher) linkConcerns(b []byte, deleted bool) bool {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC { // bridges send their own
		return false
	}
	index := int32(binary.NativeEndian.Uint32(b[4:]))
	var name string
	var mtu uint32
	for typ, v := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			name = string(trimZero(v))
		case unix.IFLA_MTU:
			mtu = getU32(v)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ours := name == w.device || index == w.index
	old, known := w.mtus[index]
	switch {
	case deleted:
		delete(w.mtus, index)
		if index == w.index {
			w.index = 0
		}
		return ours
	case name == w.device:
		w.index = index
	case index == w.index:
		w.index = 0 // renamed
	}
	w.mtus[index] = mtu
	return ours || known && old != mtu
}

// confConcerns: forwarding of the device, or of all.
func (w *watcher) confConcerns(b []byte) bool {
	const netconfIfindex, ifindexAll = 1, -1
	if len(b) < 4 {
		return false
	}
	for typ, v := range attrs(b[4:]) { // struct netconfmsg is one byte, padded
		if typ == netconfIfindex {
			index := int32(getU32(v))
			w.mu.Lock()
			defer w.mu.Unlock()
			return index == ifindexAll || index == w.index
		}
	}
	return false
}

// nftConcerns: a rule of ours is gone, or a chain at the forward hook came or
// changed. Flushing a table or a ruleset reports each rule.
func nftConcerns(msgType uint16, b []byte) bool {
	if len(b) < 4 {
		return false
	}
	for typ, v := range attrs(b[4:]) { // struct nfgenmsg
		switch {
		case msgType == unix.NFT_MSG_DELRULE && typ == unix.NFTA_RULE_USERDATA:
			return commentOf(v) == Comment
		case msgType == unix.NFT_MSG_NEWCHAIN && typ == unix.NFTA_CHAIN_HOOK:
			for typ, v := range attrs(v) {
				if typ == unix.NFTA_HOOK_HOOKNUM && len(v) >= 4 {
					return binary.BigEndian.Uint32(v) == uint32(*nftables.ChainHookForward)
				}
			}
		}
	}
	return false
}
