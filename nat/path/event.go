package path

import (
	"net/netip"
	"time"
)

// TxID is the transaction of a probe, as in STUN.
type TxID [12]byte

// Event is something that happened; one of the types below.
type Event interface{ event() }

// Tick says that the Deadline has come. An early or late Tick does no harm.
type Tick struct{}

// Wanted says that somebody here has traffic for the peer, or asks for a path
// to it (corax ping). It starts the search and holds it for a minute.
type Wanted struct{}

// LocalChanged gives our own end as it is now.
type LocalChanged struct{ Local Local }

// RemoteChanged gives the peer's end as it is now. The owner passes on every
// candidates message that it hears with the call flag, also an equal one.
type RemoteChanged struct {
	Remote Remote
	Call   bool // the peer begins to probe now and asks us to do the same
}

// RelaysChanged gives all relay ways to the peer, in any order. The Machine
// keeps the slice.
type RelaysChanged struct{ Relays []RelayWay }

// Traffic samples the counters of data packets, every 100 ms while there is
// traffic. Heard is when the last datagram of the peer came over the way in use.
type Traffic struct {
	Sent, Received uint64
	Heard          time.Time
}

// ProbeIn says that an authentic probe of the peer came over Way (for Direct:
// To is where it came from, Socket where it arrived). The owner has answered it.
type ProbeIn struct {
	Way  Way
	Tx   TxID
	Size int
}

// AnswerIn says that an authentic answer came over Way. For a relay only Kind
// and Hub of Way count, since the label of the way back is another. Mapped is
// our address as the peer saw it.
type AnswerIn struct {
	Way    Way
	Tx     TxID
	Mapped netip.AddrPort
}

// NetworkChanged says that our addresses, routes or NAT may be others now.
type NetworkChanged struct{ Why string }

// SocketsOpened answers OpenSockets.
type SocketsOpened struct{ Sockets []uint32 }

// SocketsRefused answers OpenSockets when they cannot be had.
type SocketsRefused struct{ Err string }

// Lost says that a way is gone: its stream closed, its hub went away.
type Lost struct {
	Way Way
	Why string
}

// TooBig says that the kernel refused a datagram of Size bytes of UDP payload
// on Way (EMSGSIZE).
type TooBig struct {
	Way  Way
	Size int
}

// Heard says that an authentic packet of the peer came over Way, which is not
// the one in use. For a relay only Kind and Hub of Way count.
type Heard struct{ Way Way }

// Suspect says that the way in use may be dead, since one that shares a part of
// it fell silent: it is checked at once.
type Suspect struct{}

func (Tick) event()           {}
func (Wanted) event()         {}
func (LocalChanged) event()   {}
func (RemoteChanged) event()  {}
func (RelaysChanged) event()  {}
func (Traffic) event()        {}
func (ProbeIn) event()        {}
func (AnswerIn) event()       {}
func (NetworkChanged) event() {}
func (SocketsOpened) event()  {}
func (SocketsRefused) event() {}
func (Lost) event()           {}
func (TooBig) event()         {}
func (Heard) event()          {}
func (Suspect) event()        {}
