//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	captureFrames = 4096    // the newest are kept
	captureSnap   = 256     // bytes of each
	captureBuffer = 8 << 20 // bytes in the kernel
)

// Frame is one captured Ethernet frame, or on a TUN one IP packet.
type Frame struct {
	Time     time.Time
	Outgoing bool
	Data     []byte // the first bytes
	Len      int    // of the whole frame
	// The packet inside, when it is IP.
	Src, Dst         netip.Addr
	Protocol         int    // transport protocol
	SrcPort, DstPort uint16 // of TCP and UDP
}

// Capture records the frames of one link.
type Capture struct {
	Host *Host
	Link string

	fd       int
	ethernet bool
	keep     func(Frame) bool
	wake     int // eventfd that ends Run's poll
	done     chan struct{}
	once     sync.Once

	mu     sync.Mutex
	closed bool
	ring   []Frame
	next   int
	count  int
	lost   int
	buf    []byte
}

// Capture starts to record the frames on a link that keep wants; nil means all.
// It sees both directions. The newest 4096 frames are kept, 256 bytes of each;
// a failed test writes them to a pcap file. Close ends it, as does the lab.
func (h *Host) Capture(link string, keep func(Frame) bool) (*Capture, error) {
	c := &Capture{Host: h, Link: link, keep: keep, done: make(chan struct{}), buf: make([]byte, 1<<16)}
	if err := h.Do(c.open); err != nil {
		return nil, fmt.Errorf("lab: capture on %s %s: %w", h.Name, link, err)
	}
	h.lab.mu.Lock()
	h.lab.captures = append(h.lab.captures, c)
	h.lab.mu.Unlock()
	go c.run()
	return c, nil
}

func (c *Capture) open() error {
	link, err := c.Host.nl.LinkByName(c.Link)
	if err != nil {
		return err
	}
	c.ethernet = len(link.Attrs().HardwareAddr) == 6
	// No protocol before the buffer is ready and the link is chosen.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	c.fd, c.wake = fd, wake
	return nil
}

func (c *Capture) run() {
	defer close(c.done)
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		c.mu.Lock()
		c.drainLocked()
		c.mu.Unlock()
	}
}

// drainLocked takes everything that the kernel has.
func (c *Capture) drainLocked() {
	for !c.closed {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // nothing left, or the link went away
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		data := c.buf[:min(n, len(c.buf))]
		f := Frame{Time: time.Now(), Outgoing: ll.Pkttype == unix.PACKET_OUTGOING, Data: data, Len: n}
		f.parse(c.ethernet)
		if c.keep != nil && !c.keep(f) {
			continue
		}
		f.Data = append([]byte(nil), data[:min(len(data), captureSnap)]...)
		c.count++
		if len(c.ring) < captureFrames {
			c.ring = append(c.ring, f)
			continue
		}
		c.ring[c.next] = f
		c.next = (c.next + 1) % captureFrames
	}
}

// Count returns how many wanted frames passed up to now. Every frame that was
// on the link before the call is counted, unless Lost says otherwise.
func (c *Capture) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
	return c.count
}

// Lost returns how many frames the kernel could not hand over: a test that
// counts wants 0.
func (c *Capture) Lost() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		if s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			c.lost += int(s.Drops) // reading resets it
		}
	}
	return c.lost
}

// Frames returns the newest wanted frames, oldest first.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
	return append(append([]Frame(nil), c.ring[c.next:]...), c.ring[:c.next]...)
}

// Close ends the recording; what was recorded stays readable.
func (c *Capture) Close() {
	c.once.Do(func() {
		_, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-c.done
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drainLocked()
		c.closed = true
		_ = unix.Close(c.fd)
		_ = unix.Close(c.wake)
	})
}

// WritePCAP writes the frames to a file that tcpdump and Wireshark read.
func (c *Capture) WritePCAP(path string) error {
	linkType := uint32(1) // LINKTYPE_ETHERNET
	if !c.ethernet {
		linkType = 101 // LINKTYPE_RAW
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b23c4d) // nanoseconds
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, captureSnap)
	b = le.AppendUint32(b, linkType)
	for _, f := range c.Frames() {
		b = le.AppendUint32(b, uint32(f.Time.Unix()))
		b = le.AppendUint32(b, uint32(f.Time.Nanosecond()))
		b = le.AppendUint32(b, uint32(len(f.Data)))
		b = le.AppendUint32(b, uint32(f.Len))
		b = append(b, f.Data...)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// parse fills in the addresses; what is not IP leaves them zero.
func (f *Frame) parse(ethernet bool) {
	p := f.Data
	if ethernet {
		if len(p) < 14 {
			return
		}
		switch binary.BigEndian.Uint16(p[12:]) {
		case unix.ETH_P_IP, unix.ETH_P_IPV6:
		default:
			return
		}
		p = p[14:]
	}
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		f.Src, f.Dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		f.Protocol = int(p[9])
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return // a later fragment has no ports
		}
		p = p[min(int(p[0]&15)*4, len(p)):]
	case len(p) >= 40 && p[0]>>4 == 6:
		f.Src, f.Dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		f.Protocol = int(p[6])
		p = p[40:]
	default:
		return
	}
	if (f.Protocol == unix.IPPROTO_TCP || f.Protocol == unix.IPPROTO_UDP) && len(p) >= 4 {
		f.SrcPort, f.DstPort = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	}
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }
