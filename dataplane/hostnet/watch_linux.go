package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// watchQuiet is how long after the last event changed is called, so that a
	// burst of events costs one Apply.
	watchQuiet = 100 * time.Millisecond
	// watchMax bounds the delay while events keep coming.
	watchMax = time.Second
)

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
	if err := w.open(); err != nil {
		return fmt.Errorf("hostnet: watch: %w", err)
	}
	var wg sync.WaitGroup
	for _, s := range w.sockets {
		wg.Go(func() { w.receive(s) })
	}
	err := w.deliver(ctx, changed)
	for _, s := range w.sockets {
		s.Close() // wakes receive
	}
	wg.Wait()
	if err != nil {
		return fmt.Errorf("hostnet: watch: %w", err)
	}
	return nil
}

// watcher turns netlink events into calls.
type watcher struct {
	device  string
	sockets []*nl.NetlinkSocket
	wake    chan struct{} // 1 slot: an event came
	failed  chan error    // a socket is lost

	mu    sync.Mutex
	index int32            // of the device; 0 when there is none
	mtus  map[int32]uint32 // by link
}

func newWatcher(device string) *watcher {
	return &watcher{device: device, wake: make(chan struct{}, 1), failed: make(chan error, 2), mtus: make(map[int32]uint32)}
}

func (w *watcher) open() error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("subscribe to route events: %w", err)
	}
	w.sockets = append(w.sockets, s)
	// Without nftables there is nothing to watch there.
	if s, err := nl.Subscribe(unix.NETLINK_NETFILTER, nfGroupTables); err == nil {
		w.sockets = append(w.sockets, s)
	}
	if err := w.listLinks(); err != nil {
		for _, s := range w.sockets {
			s.Close()
		}
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

// receive reads one socket until it is closed.
func (w *watcher) receive(s *nl.NetlinkSocket) {
	for {
		msgs, _, err := s.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENOBUFS):
			w.signal() // events were lost: look at everything
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			w.failed <- err
			return
		}
		for _, m := range msgs {
			if w.concerns(m) { // notes MTUs too, so every message gets there
				w.signal()
			}
		}
	}
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// deliver calls changed once it has been quiet after events, until ctx is done
// or a socket is lost.
func (w *watcher) deliver(ctx context.Context, changed func()) error {
	quiet := time.NewTimer(watchQuiet)
	quiet.Stop()
	var first time.Time // of the events not yet delivered
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.failed:
			return err
		case <-w.wake:
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			quiet.Reset(min(watchQuiet, max(0, watchMax-now.Sub(first))))
		case <-quiet.C:
			first = time.Time{}
			changed()
		}
	}
}

// concerns reports whether an event may make Apply do something.
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
