package nat

import (
	"net/netip"
	"time"

	"corax/dataplane/key"
	"corax/nat/relay"
	"corax/nat/stream"
)

// Path is one way to a peer, as the tunnel takes it: exactly one of To, Stream,
// and Via with Label is set; the zero Path is none.
type Path struct {
	To     netip.AddrPort
	Local  netip.Addr
	Socket uint32
	Stream *stream.Conn
	Via    key.Public
	Label  uint64
}

// own reports whether the peer itself is reached, not over a relay.
func (p Path) own() bool { return p.To.IsValid() || p.Stream != nil }

// Raw is a datagram of ours beside WireGuard's. TTL zero means the system's.
type Raw struct {
	Path Path
	Data []byte
	TTL  int
	DF   bool
}

// SendError says why one of several datagrams was not sent.
type SendError struct {
	Index int
	Err   error
}

// Datagram is a STUN message that arrived on the tunnel port. From, Local and
// Socket are those of the UDP datagram, the hub's for a relayed one. Stream and
// Peer are set when it came over a stream; Via, Label and Peer, the origin, when
// it was relayed. Data is valid during the call.
type Datagram struct {
	From      netip.AddrPort
	Local     netip.Addr
	Socket    uint32
	Stream    *stream.Conn
	Peer, Via key.Public
	Label     uint64
	Data      []byte
}

// Activity is what goes on with one peer: data packets ever sent and received,
// its path, and when something last came over that.
type Activity struct {
	Sent, Received uint64
	Path           Path
	Heard          time.Time
}

// Tunnel is what the agent needs of the WireGuard device. All methods are safe
// for concurrent use and do not block for long.
type Tunnel interface {
	SetPath(k key.Public, p Path, pin bool)
	SetLabels(labels map[uint64]relay.Forward)
	SendRaw(batch []Raw) []SendError
	OpenSockets(n int, v6 bool) ([]uint32, error)
	CloseSockets(keep ...uint32)
	Activity(k key.Public) (Activity, bool)
	Handshake(k key.Public) bool
	Inject(k key.Public, s *stream.Conn, datagrams [][]byte)
	EndStream(s *stream.Conn)
}
