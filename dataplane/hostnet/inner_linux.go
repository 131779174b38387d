package hostnet

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane/internal/offload"
)

// OpenInner sets up the network namespace of the calling thread, which is new and for
// one program alone: loopback, a TUN, and default routes into that. It returns the
// TUN's descriptor, which may be handed to a process outside the namespace, for
// [AttachTUN]; the device goes with its last descriptor.
func OpenInner(cfg InnerConfig) (*os.File, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("hostnet: set up the namespace: %w", err)
	}
	f, err := openInner(cfg)
	if err != nil {
		return nil, fmt.Errorf("hostnet: set up the namespace: %w", err)
	}
	return f, nil
}

func openInner(cfg InnerConfig) (*os.File, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err == nil {
		err = nl.LinkSetUp(lo)
	}
	if err != nil {
		return nil, fmt.Errorf("bring loopback up: %w", explainPermission(err))
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainOpen(err)
	}
	if err = makeInner(nl, fd, cfg); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), tunPath), nil
}

func makeInner(nl *netlink.Handle, fd int, cfg InnerConfig) error {
	ifr, err := unix.NewIfreq(cfg.Name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("make TUN %s: %w", cfg.Name, explainPermission(err))
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offload.HeaderLen); err != nil {
		return fmt.Errorf("set the header length: %w", err)
	}
	link, err := nl.LinkByName(cfg.Name)
	if err != nil {
		return fmt.Errorf("find TUN %s: %w", cfg.Name, err)
	}
	if err := nl.LinkSetMTU(link, cfg.MTU); err != nil {
		return fmt.Errorf("set MTU %d: %w", cfg.MTU, explainPermission(err))
	}
	if err := nl.LinkSetTxQLen(link, tunQueue); err != nil {
		return fmt.Errorf("set the queue length: %w", explainPermission(err))
	}
	come, err := newArrivals()
	if err != nil {
		return err
	}
	defer come.close()
	for _, a := range cfg.Addrs {
		// Without duplicate address detection: there is nobody else.
		ip := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD}
		if err := nl.AddrAdd(link, ip); err != nil {
			return fmt.Errorf("add address %s: %w", a, explainPermission(err))
		}
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring it up: %w", explainPermission(err))
	}
	for _, a := range cfg.Addrs {
		all := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
		if err := nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Src: a.AsSlice()}); err != nil {
			return fmt.Errorf("add the default route from %s: %w", a, explainPermission(err))
		}
	}
	come.wait(nl, cfg.Addrs)
	return nil
}

// AttachTUN makes a TUN of a descriptor that [OpenInner] returned, in whatever network
// namespace the device is. It takes the descriptor over. What needs that namespace,
// SetMTU for one, fails.
func AttachTUN(cfg TUNConfig, f *os.File) (*TUN, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("hostnet: attach TUN: %w", err)
	}
	t := &TUN{log: cfg.Log, name: cfg.Name, receive: cfg.Receive, file: f}
	t.mtu.Store(int64(cfg.MTU))
	var err error
	if t.conn, err = f.SyscallConn(); err != nil {
		return nil, fmt.Errorf("hostnet: attach TUN %s: %w", cfg.Name, err)
	}
	features := 0
	if err := t.conn.Control(func(fd uintptr) { features = setOffload(int(fd)) }); err != nil {
		return nil, fmt.Errorf("hostnet: attach TUN %s: %w", cfg.Name, err)
	}
	t.reader.init()
	t.writer.init(features)
	return t, nil
}
