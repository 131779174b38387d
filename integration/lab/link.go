//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LinkConfig is what a userspace link does to frames. The zero value passes all of
// them at once, as a cable does.
type LinkConfig struct {
	Out Shape // from the host
	In  Shape // to the host
}

// tapQueue is how many frames the kernel keeps for a pump that is late.
const tapQueue = 10000

// userLink is a cable made of two TAPs and a pump for each direction. The
// network emulator of the kernel (netem) is often not there, and cannot treat
// destinations differently.
type userLink struct {
	taps    [2]*os.File // the host's, the LAN's
	out, in *pump
	wg      sync.WaitGroup
	once    sync.Once
}

// ShapedLAN makes a segment whose links are userspace links, which delay and lose
// frames as cfg says; see also [Host.Shape].
func (l *Lab) ShapedLAN(name string, mtu int, cfg LinkConfig) *LAN {
	lan := l.LAN(name, mtu)
	lan.shape = &cfg
	return lan
}

// Shape changes what a link to a [Lab.ShapedLAN] does, for frames that pass from
// now on. Frames that wait stay as they are.
func (h *Host) Shape(link string, cfg LinkConfig) { h.ShapeTo(link, netip.Prefix{}, cfg) }

// ShapeTo is Shape only for IP packets whose other end, the destination of what
// the host sends and the source of what it gets, is in the prefix. The first
// prefix that was named decides. Packets of different prefixes do not wait for
// one another.
func (h *Host) ShapeTo(link string, other netip.Prefix, cfg LinkConfig) {
	if h.lab.failed(nil) {
		return
	}
	u, ok := h.lab.shaped[plugKey{h.Name, link}]
	if !ok {
		h.try("shape "+link, errors.New("not a link to a ShapedLAN"))
		return
	}
	h.try("shape "+link, errors.Join(u.out.set(other, cfg.Out), u.in.set(other, cfg.In)))
}

// LinkCounters says what a userspace link did to frames, in both directions.
type LinkCounters struct {
	Passed uint64
	Lost   uint64 // by chance, as Shape.Loss says
	Full   uint64 // because too many waited
	Failed uint64 // a link was down
}

// LinkCounters returns the counters of a link to a ShapedLAN.
func (h *Host) LinkCounters(link string) LinkCounters {
	var c LinkCounters
	if u, ok := h.lab.shaped[plugKey{h.Name, link}]; ok {
		for _, p := range []*pump{u.out, u.in} {
			c.Passed += p.passed.Load()
			c.Lost += p.lost.Load()
			c.Full += p.full.Load()
			c.Failed += p.failed.Load()
		}
	}
	return c
}

// plugShaped is plug with a userspace link.
func plugShaped(nl *netlink.Handle, lan *LAN, port string, h *Host, link string) (*userLink, error) {
	u := new(userLink)
	open := func(i int, nl *netlink.Handle, name, bridge string) (err error) {
		u.taps[i], err = openTAP(nl, name, bridge, lan.MTU)
		return err
	}
	err := open(1, nl, port, lan.bridge) // in the LAN's namespace, where we are
	if err == nil {
		err = h.Do(func() error { return open(0, h.nl, link, "") })
	}
	if err == nil {
		err = errors.Join(waitUp(nl, port), waitUp(h.nl, link))
	}
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	u.out = newPump(u.taps[0], u.taps[1], destination, lan.MTU, &u.wg)
	u.in = newPump(u.taps[1], u.taps[0], source, lan.MTU, &u.wg)
	err = errors.Join(u.out.set(netip.Prefix{}, lan.shape.Out), u.in.set(netip.Prefix{}, lan.shape.In))
	u.wg.Go(u.out.run)
	u.wg.Go(u.in.run)
	return u, err
}

// Close ends the pumps and takes the TAPs away.
func (u *userLink) Close() error {
	u.once.Do(func() {
		for _, p := range []*pump{u.out, u.in} {
			if p != nil {
				close(p.done)
			}
		}
		for _, t := range u.taps {
			if t != nil {
				_ = t.Close()
			}
		}
		u.wg.Wait()
	})
	return nil
}

// openTAP makes a TAP in the calling thread's namespace, which must be nl's, and
// takes it up; on a bridge when one is named.
func openTAP(nl *netlink.Handle, name, bridge string, mtu int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open TAP %s: %w", name, err)
	}
	f, err := setUpTAP(nl, fd, name, bridge, mtu)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up TAP %s: %w", name, err), unix.Close(fd))
	}
	return f, nil
}

func setUpTAP(nl *netlink.Handle, fd int, name, bridge string, mtu int) (*os.File, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, err
	}
	link, err := nl.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if err := nl.LinkSetTxQLen(link, tapQueue); err != nil {
		return nil, err
	}
	if err := nl.LinkSetMTU(link, mtu); err != nil {
		return nil, err
	}
	if bridge != "" {
		br, err := nl.LinkByName(bridge)
		if err != nil {
			return nil, err
		}
		if err := nl.LinkSetMaster(link, br); err != nil {
			return nil, err
		}
	}
	if err := nl.LinkSetUp(link); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil // non-blocking, so Close ends a Read
}

// pumpCounters are those of one direction.
type pumpCounters struct{ passed, lost, full, failed atomic.Uint64 }
