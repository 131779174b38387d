//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LAN is one Ethernet segment.
type LAN struct {
	Name string
	MTU  int // of every link attached after it was set, in bytes

	lab    *Lab
	bridge string
	shape  *LinkConfig // nil: links are veth pairs
}

// firstPort is above the link index numbers that the kernel gives by itself.
const firstPort = 1000

// LAN makes a segment whose links have the given MTU; 0 means 1500.
func (l *Lab) LAN(name string, mtu int) *LAN {
	if mtu == 0 {
		mtu = 1500
	}
	lan := &LAN{Name: name, MTU: mtu, lab: l}
	if l.failed(nil) {
		return lan
	}
	if err := lan.open(); err != nil {
		l.failed(fmt.Errorf("LAN %s: %w", name, err))
	}
	return lan
}

func (lan *LAN) open() error {
	l := lan.lab
	if l.wires == nil {
		dir, err := l.hostDir("wires")
		if err != nil {
			return err
		}
		s, err := newSpace(dir)
		if err != nil {
			return err
		}
		l.wires = s
	}
	l.lans++
	lan.bridge = "lan" + strconv.Itoa(l.lans)
	return l.wires.do(func() error {
		// A switch looks at no IP packet.
		if err := writeSysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			return err
		}
		for _, f := range []string{"iptables", "ip6tables", "arptables"} {
			_ = writeSysctl("net/bridge/bridge-nf-call-"+f, "0") // absent without br_netfilter
		}
		return addBridge(nil, lan.bridge, lan.MTU)
	})
}

// addBridge makes a bridge and takes it up. A nil handle means the calling
// thread's namespace.
func addBridge(nl *netlink.Handle, name string, mtu int) error {
	if nl == nil {
		var err error
		if nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		defer nl.Close()
	}
	snoop := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, MulticastSnooping: &snoop}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nl.LinkSetUp(br)
}

// Attach connects h to the LAN with a new link of the given name and addresses.
func (h *Host) Attach(lan *LAN, link string, addrs ...netip.Prefix) {
	if h.lab.failed(nil) {
		return
	}
	port := lan.bridge + "p" + strconv.Itoa(int(h.lab.ports.Load())+1)
	err := h.lab.wires.do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		if lan.shape == nil {
			return plug(nl, lan.bridge, port, lan.MTU, h, link)
		}
		h.lab.ports.Add(1)
		u, err := plugShaped(nl, lan, port, h, link)
		if err == nil {
			h.keep(u)
			h.lab.shaped[plugKey{h.Name, link}] = u
		}
		return err
	})
	if err != nil {
		h.try("attach to "+lan.Name, err)
		return
	}
	h.lab.plugs[plugKey{h.Name, link}] = port
	h.AddAddr(link, addrs...)
}

// plugKey names a link of a host.
type plugKey struct{ host, link string }

// Unplug takes the cable out of a link to a LAN: the link loses its carrier, and
// keeps its addresses and routes.
func (h *Host) Unplug(link string) { h.setPlug(link, false) }

// Plug undoes Unplug; packets pass when it returns.
func (h *Host) Plug(link string) { h.setPlug(link, true) }

func (h *Host) setPlug(link string, in bool) {
	if h.lab.failed(nil) {
		return
	}
	port, ok := h.lab.plugs[plugKey{h.Name, link}]
	if !ok {
		h.try("unplug", fmt.Errorf("no LAN at link %s", link))
		return
	}
	h.try("plug "+link, h.lab.wires.do(func() error { return setUp(port, in) }))
	if in {
		h.try("plug "+link, waitUp(h.nl, link))
	}
}

// setUp takes a link of the calling thread's namespace up or down, and waits
// until an upped one passes packets.
func setUp(name string, up bool) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(name)
	if err != nil {
		return err
	}
	if !up {
		return nl.LinkSetDown(link)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return err
	}
	return waitUp(nl, name)
}

// plug makes a veth pair: port, in the namespace of nl and on its bridge, and
// link in h; both up.
func plug(nl *netlink.Handle, bridge, port string, mtu int, h *Host, link string) error {
	br, err := nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	veth := &netlink.Veth{
		// When both ends of a pair happen to have the same index, the kernel
		// takes up to a second longer to let the bridge forward.
		LinkAttrs: netlink.LinkAttrs{
			Name: port, Index: int(h.lab.ports.Add(1)) + firstPort, MTU: mtu, MasterIndex: br.Attrs().Index,
		},
		PeerName: link,
	}
	err = h.space.withNetns(func(fd int) error {
		veth.PeerNamespace = netlink.NsFd(fd)
		return nl.LinkAdd(veth)
	})
	if err != nil {
		return fmt.Errorf("add veth %s: %w", port, err)
	}
	if err := nl.LinkSetUp(veth); err != nil {
		return err
	}
	peer, err := h.nl.LinkByName(link)
	if err != nil {
		return err
	}
	if err := h.nl.LinkSetMTU(peer, mtu); err != nil {
		return err
	}
	if err := h.nl.LinkSetUp(peer); err != nil {
		return err
	}
	if err := waitUp(nl, port); err != nil {
		return err
	}
	return waitUp(h.nl, link)
}

// waitUp waits until the kernel has noticed, in the background, that a link has
// a carrier: before that it drops what is sent, and a bridge forwards nothing.
func waitUp(nl *netlink.Handle, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return poll(ctx, time.Millisecond, func() error {
		link, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		up := link.Attrs().OperState == netlink.OperUp
		if link.Type() == "tuntap" || link.Type() == "tun" { // says no more than that
			up = link.Attrs().OperState == netlink.OperUnknown && link.Attrs().RawFlags&unix.IFF_RUNNING != 0 || up
		}
		if !up {
			err = fmt.Errorf("link %s is %s", name, link.Attrs().OperState)
		}
		return err
	})
}

// ipNet converts a prefix, keeping the host bits out.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   p.Masked().Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}
