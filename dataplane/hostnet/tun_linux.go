package hostnet

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

var _ dataplane.Sender = (*TUN)(nil)

const (
	tunPath = "/dev/net/tun"

	// tunQueue is the length of the kernel's queue towards us, in packets (of
	// up to 64 KiB). The kernel's own choice for a TUN, 500, is short for a
	// reader that shares its processor with the encryption.
	tunQueue = 1000
)

// TUN is the device through which this node's own pods reach the agent. It is
// persistent: when the agent dies the device stays, without carrier, so that
// routes into it fail instead of leaking; the next agent attaches again.
//
// Super-packets of the kernel (TSO, USO) are cut before they are handed on, and
// packets of one flow are joined before they are written.
type TUN struct {
	log     *slog.Logger
	name    string
	index   int
	mtu     atomic.Int64
	receive dataplane.Sender
	count   tunCounters

	file *os.File
	conn syscall.RawConn
	nl   *netlink.Handle // nil: the device is in another network namespace

	reader tunReader
	writer tunWriter

	closed atomic.Bool
}

// OpenTUN makes the device, or attaches to the one that an agent left behind,
// sets it up and brings it up. Nothing is read before [TUN.Run].
func OpenTUN(cfg TUNConfig) (*TUN, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("hostnet: open TUN: %w", err)
	}
	t, err := openTUN(cfg)
	if err != nil {
		return nil, fmt.Errorf("hostnet: open TUN %s: %w", cfg.Name, err)
	}
	return t, nil
}

func openTUN(cfg TUNConfig) (*TUN, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		nl.Close()
		return nil, explainOpen(err)
	}
	t := &TUN{log: cfg.Log, name: cfg.Name, receive: cfg.Receive, nl: nl}
	left, features, err := t.attach(fd)
	if err == nil {
		if err = t.setUp(cfg.MTU); err != nil && !left {
			_ = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0) // ours and unfinished: do not leave it
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		nl.Close()
		return nil, err
	}
	// Only now: a descriptor without a device cannot be polled.
	t.file = os.NewFile(uintptr(fd), tunPath)
	if t.conn, err = t.file.SyscallConn(); err != nil {
		_ = t.Close()
		return nil, err
	}
	t.reader.init()
	t.writer.init(features)
	t.log.Info("TUN open", "name", t.name, "mtu", cfg.MTU, "reattached", left,
		"tso", features&unix.TUN_F_TSO4 != 0, "uso", features&unix.TUN_F_USO4 != 0)
	return t, nil
}

// attach makes fd the device. left says that it was there before; features are
// the offloads that the kernel agreed to.
func (t *TUN) attach(fd int) (left bool, features int, err error) {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return false, 0, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return false, 0, t.explainAttach(err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return false, 0, fmt.Errorf("read its flags: %w", err)
	}
	left = ifr.Uint16()&unix.IFF_PERSIST != 0
	// Whoever may open /dev/net/tun may attach to a persistent device without
	// an owner: any local user, while no agent runs.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, os.Geteuid()); err != nil {
		return left, 0, fmt.Errorf("set its owner: %w", explainPermission(err))
	}
	// A device left by something else may have another header length.
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offload.HeaderLen); err != nil {
		return left, 0, fmt.Errorf("set the header length: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return left, 0, fmt.Errorf("make it persistent: %w", err)
	}
	return left, setOffload(fd), nil
}

// setOffload asks for all that we can take and then for less: kernels before
// 6.2 know no USO, and some sandboxes no offload at all.
func setOffload(fd int) int {
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	for _, f := range []int{
		tso | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
		tso | unix.TUN_F_TSO_ECN,
		tso,
		unix.TUN_F_CSUM,
	} {
		if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, f) == nil {
			return f
		}
	}
	_ = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)
	return 0
}

func (t *TUN) setUp(mtu int) error {
	link, err := t.nl.LinkByName(t.name)
	if err != nil {
		return fmt.Errorf("find the link: %w", err)
	}
	t.index = link.Attrs().Index
	if err := t.setMTU(mtu); err != nil {
		return err
	}
	if err := t.nl.LinkSetTxQLen(link, tunQueue); err != nil {
		return fmt.Errorf("set the queue length: %w", explainPermission(err))
	}
	if err := t.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring it up: %w", explainPermission(err))
	}
	return nil
}

// Name returns the name of the device.
func (t *TUN) Name() string { return t.name }

// Index returns the interface index of the device.
func (t *TUN) Index() int { return t.index }

// MTU returns the MTU in bytes that was set last.
func (t *TUN) MTU() int { return int(t.mtu.Load()) }

// SetMTU changes the MTU of the device.
func (t *TUN) SetMTU(mtu int) error {
	err := checkTUNMTU(mtu)
	if err == nil {
		err = t.setMTU(mtu)
	}
	if err != nil {
		return fmt.Errorf("hostnet: TUN %s: %w", t.name, err)
	}
	return nil
}

func (t *TUN) setMTU(mtu int) error {
	if t.nl == nil {
		return errors.New("it is in another network namespace")
	}
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: t.name, Index: t.index}}
	if err := t.nl.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, explainPermission(err))
	}
	t.mtu.Store(int64(mtu))
	return nil
}

// Control calls f with the descriptor of the device, for one that hands it to another
// process: see [AttachTUN]. It is not valid after f.
func (t *TUN) Control(f func(fd uintptr)) error { return t.conn.Control(f) }

// Counters returns the counters of the device. Bytes are those of IP packets,
// packets those that the fabric sees.
func (t *TUN) Counters() []dataplane.Counter { return t.count.list() }

// Close lets go of the device, which stays, without carrier, for the next agent.
// Run returns, Send drops. Closing twice does nothing.
func (t *TUN) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	if t.nl != nil {
		defer t.nl.Close()
	}
	return t.file.Close()
}

// Remove deletes the device, if it is still there, and closes the TUN. After
// Close it fails.
func (t *TUN) Remove() error {
	if t.closed.Load() {
		return fmt.Errorf("hostnet: remove TUN %s: %w", t.name, os.ErrClosed)
	}
	var errno error
	err := t.conn.Control(func(fd uintptr) {
		errno = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 0)
	})
	if errno == unix.EBADFD {
		errno = nil // somebody has deleted it already
	}
	// The last descriptor of a device that is not persistent takes it along.
	if err = errors.Join(err, errno, t.Close()); err != nil {
		return fmt.Errorf("hostnet: remove TUN %s: %w", t.name, err)
	}
	return nil
}
