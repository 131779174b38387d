package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtnl is a pair of netlink route sockets in the namespace of the thread that
// opened them: the library's handle for links, addresses and rules, and a raw
// one for what the library cannot say.
type rtnl struct {
	*netlink.Handle
	raw *nl.SocketHandle
}

const (
	netlinkTimeout = 10 * time.Second
	// dumpTries bounds how often a dump is repeated that a concurrent change
	// interrupted.
	dumpTries = 5
)

func openRtnl() (*rtnl, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	tv := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	_ = s.SetSendTimeout(&tv)
	_ = s.SetReceiveTimeout(&tv)
	// No NETLINK_EXT_ACK: the library panics on a dump that ends in an error
	// with a text.
	// Lets the kernel filter dumps by table (Linux 4.20); older kernels send
	// everything, and the decoder filters again.
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &rtnl{Handle: h, raw: &nl.SocketHandle{Socket: s}}, nil
}

func (c *rtnl) close() {
	c.raw.Close()
	c.Close()
}

// do sends one request and returns the answers, the netlink header stripped.
func (c *rtnl) do(cmd, flags int, data ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(cmd, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.raw}
	for _, d := range data {
		req.AddData(d)
	}
	return req.Execute(unix.NETLINK_ROUTE, 0)
}

// dump calls list until no concurrent change interrupted it.
func dump[T any](list func() (T, error)) (T, error) {
	var v T
	var err error
	for range dumpTries {
		if v, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return v, err
}

// attrs iterates over netlink attributes, type flags stripped; it stops at the
// first malformed one.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(typ, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func u32attr(typ int, v uint32) *nl.RtAttr {
	return nl.NewRtAttr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

func getU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// noFamily reports whether err says that the kernel runs without the address
// family, as with ipv6.disable=1.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}
