package hostnet

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

var tunDiscard = dataplane.SenderFunc(func([]dataplane.Packet) {})

func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func TestTUNConfig(t *testing.T) {
	for _, row := range []struct {
		name string
		cfg  TUNConfig
		want string
	}{
		{"no name", TUNConfig{Receive: tunDiscard}, "device name"},
		{"long name", TUNConfig{Name: "sixteen-bytes-xy", Receive: tunDiscard}, "device name"},
		{"pattern", TUNConfig{Name: "tun%d", Receive: tunDiscard}, "not allowed"},
		{"slash", TUNConfig{Name: "a/b", Receive: tunDiscard}, "not allowed"},
		{"no receiver", TUNConfig{Name: "x"}, "no receiver"},
		{"MTU below IPv6", TUNConfig{Name: "x", MTU: 1279, Receive: tunDiscard}, "MTU 1279"},
		{"MTU too big", TUNConfig{Name: "x", MTU: 65536, Receive: tunDiscard}, "MTU 65536"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := OpenTUN(row.cfg)
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "hostnet: ") {
				t.Fatalf("%v; want one with %q", err, row.want)
			}
		})
	}
}

func TestTUNSetUp(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, tunDiscard)
	link, err := netlink.LinkByName(tunName)
	if err != nil {
		t.Fatal(err)
	}
	a := link.Attrs()
	dev, ok := link.(*netlink.Tuntap)
	if !ok || dev.Mode != netlink.TUNTAP_MODE_TUN || dev.NonPersist || dev.Flags&netlink.TUNTAP_VNET_HDR == 0 || dev.Owner != uint32(os.Geteuid()) {
		t.Errorf("not a persistent TUN of ours with vnet_hdr: %+v", dev)
	}
	if a.MTU != dataplane.DefaultMTU || tun.MTU() != a.MTU || a.TxQLen < 1000 || a.Flags&net.FlagUp == 0 || a.Index != tun.Index() || tun.Name() != tunName {
		t.Errorf("MTU %d, queue %d, flags %s, index %d", a.MTU, a.TxQLen, a.Flags, a.Index)
	}
	if err := tun.SetMTU(8912); err != nil {
		t.Fatal(err)
	}
	if iface, err := net.InterfaceByIndex(tun.Index()); err != nil || iface.MTU != 8912 || tun.MTU() != 8912 {
		t.Errorf("%+v, %v; want MTU 8912", iface, err)
	}
	if err := tun.SetMTU(100); err == nil || tun.MTU() != 8912 {
		t.Error("an MTU of 100 was taken")
	}
	if err := tun.Close(); err != nil {
		t.Error(err)
	}
	if err := tun.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := tun.Remove(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Remove after Close: %v", err)
	}
}

func TestTUNBusy(t *testing.T) {
	tunNamespace(t)
	mustOpen(t, tunDiscard)
	_, err := OpenTUN(TUNConfig{Name: tunName, Receive: tunDiscard})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "another agent is attached") {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(tunName); err != nil {
		t.Fatalf("the device of the other agent is gone: %v", err)
	}
}

func TestTUNWrongKind(t *testing.T) {
	for _, row := range []struct {
		name string
		link func(netlink.LinkAttrs) netlink.Link
		want string
	}{
		{"dummy", func(a netlink.LinkAttrs) netlink.Link { return &netlink.Dummy{LinkAttrs: a} }, "dummy"},
		{"bridge", func(a netlink.LinkAttrs) netlink.Link { return &netlink.Bridge{LinkAttrs: a} }, "bridge"},
		{"tap", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Tuntap{LinkAttrs: a, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
		}, "TAP"},
		{"multi-queue", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Tuntap{LinkAttrs: a, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS, Queues: 1}
		}, "multi-queue TUN"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tunNamespace(t)
			link := row.link(netlink.LinkAttrs{Name: tunName})
			if err := netlink.LinkAdd(link); err != nil {
				t.Skipf("kernel cannot make a %s: %v", row.name, err)
			}
			if dev, ok := link.(*netlink.Tuntap); ok {
				for _, f := range dev.Fds {
					_ = f.Close()
				}
			}
			_, err := OpenTUN(TUNConfig{Name: tunName, Receive: tunDiscard})
			if err == nil || !strings.Contains(err.Error(), "taken by a "+row.want+" device") {
				t.Fatal(err)
			}
			if _, err := net.InterfaceByName(tunName); err != nil {
				t.Fatalf("the foreign device is gone: %v", err)
			}
		})
	}
}

// TestTUNForeignSettings: a plain TUN that somebody left is taken over.
func TestTUNForeignSettings(t *testing.T) {
	tunNamespace(t)
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: tunName}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_VNET_HDR, Queues: 1}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, f := range link.Fds {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { err = unix.IoctlSetPointerInt(int(fd), unix.TUNSETVNETHDRSZ, 12) })
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	m := newMirror(t)
	runTUN(t, m.tun)
	exchange(t, near4, far4, 0)
}

func TestTUNNoPermission(t *testing.T) {
	tunNamespace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	all := data
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &data[0]); err != nil { // this thread only
		t.Fatal(err)
	}
	_, err := OpenTUN(TUNConfig{Name: tunName, Receive: tunDiscard})
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "no permission for the TUN: needs CAP_NET_ADMIN") {
		t.Fatal(err)
	}
	if err := unix.Capset(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, tunDiscard)
}

func TestTUNOpenErrors(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "no /dev/net/tun"},
		{unix.ENODEV, "the kernel has no TUN"},
		{unix.EPERM, "refused by the device cgroup"},
		{unix.EACCES, "no permission to open"},
		{unix.EMFILE, "open /dev/net/tun"},
	} {
		if err := explainOpen(row.err); !errors.Is(err, row.err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v; want %q", row.err, err, row.want)
		}
	}
}

func TestTUNLoopback(t *testing.T) {
	tunNamespace(t)
	_, err := OpenTUN(TUNConfig{Name: "lo", Receive: tunDiscard})
	if err == nil || !strings.Contains(err.Error(), "taken by") {
		t.Fatal(err)
	}
}
