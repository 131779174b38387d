package netstack

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Bounds of a connection's buffers in bytes. They are limits, not reserved
// memory, and gVisor moves between them as the round trip asks for.
const (
	bufferMin     = 4 << 10
	bufferDefault = 256 << 10
	bufferMax     = 4 << 20
)

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
func tuneTCP(s *stack.Stack) error {
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
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax},
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set TCP option %T: %s", o, err)
		}
	}
	return nil
}
