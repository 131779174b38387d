package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Bounds of a connection's buffers in bytes, where memory is no concern. They are
// limits, not reserved memory, and gVisor moves between them as the round trip asks
// for.
const (
	bufferMin     = 4 << 10
	bufferDefault = 256 << 10
	bufferMax     = 4 << 20
)

// Buffers bounds what a stack holds in memory. A zero field means what a machine
// with memory enough has.
type Buffers struct {
	// Default is what a connection takes at first that nobody reads, or holds that
	// nobody acknowledged, each way, in bytes: 256 KiB. Max is how much that becomes
	// on a long path: 4 MiB.
	Default, Max int
	// Queue bounds the packets on their way out of the stack, in bytes: as many as
	// one connection may have in flight (Max), so that a connection does not lose its
	// own segments there.
	Queue int
}

func (b *Buffers) check() error {
	if b.Default < 0 || b.Max < 0 || b.Queue < 0 {
		return errors.New("a buffer below zero")
	}
	b.Max = max(cmp.Or(b.Max, bufferMax), bufferMin)
	b.Default = max(min(cmp.Or(b.Default, bufferDefault), b.Max), bufferMin)
	b.Queue = max(cmp.Or(b.Queue, b.Max), 2*gsoMax)
	return nil
}

// Bytes that nobody acknowledges end a connection after 20 seconds, or up to 40 on
// a long path. That is done by the retransmissions, not by TCP_USER_TIMEOUT: with
// it gVisor also ends connections whose other end is alive and takes nothing, as a
// pager that waits for its reader.
const (
	maxRTO     = 5 * time.Second
	maxRetries = 7
)

// timeWait is how long the address pair of a closed connection is kept. Each costs
// some 5 KB, and short streams are many: 10,000 of them left 35 MB for the minute
// that gVisor takes. Packets of the overlay are not on their way for so long, and
// timestamps tell old ones from new (RFC 7323 section 5).
const timeWait = 10 * time.Second

// tuneTCP sets what differs from gVisor's own choice.
func tuneTCP(s *stack.Stack, b Buffers) error {
	sack := tcpip.TCPSACKEnabled(true)
	// RACK costs throughput instead of giving it: google/gvisor#9707.
	recovery := tcpip.TCPRecovery(0)
	// CUBIC's window overflows: google/gvisor#11632.
	reno := tcpip.CongestionControlOption("reno")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rto, retries := tcpip.TCPMaxRTOOption(maxRTO), tcpip.TCPMaxRetriesOption(maxRetries)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &recovery, &reno, &moderate, &rto, &retries, &wait,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: b.Default, Max: b.Max},
		&tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: b.Default, Max: b.Max},
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set TCP option %T: %s", o, err)
		}
	}
	return nil
}
