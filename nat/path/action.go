package path

// Action is something that the owner does for the Machine, in order; one of the
// types below.
type Action interface{ action() }

// SendProbe sends an authenticated probe to the peer on Way. On a relay or
// stream TTL is zero; DF on a relay is for our own datagram to the hub.
type SendProbe struct {
	Tx   TxID
	Way  Way
	TTL  int  // IP TTL or hop limit; zero means the system's
	Size int  // bytes of UDP payload, without a relay header; zero: no padding
	DF   bool // do not fragment, and do not heed the kernel's path MTU
}

// Use makes Way the peer's path, for a Cause. A Way of Kind None takes the path
// away.
type Use struct {
	Way   Way
	Cause Reason
}

// Announce sends our candidates to the peer now.
type Announce struct {
	Call bool // ask the peer for its own and to probe now
}

// OpenSockets asks for N further sockets for a birthday search; SocketsOpened
// or SocketsRefused answers it.
type OpenSockets struct{ N int }

// CloseSockets gives up the sockets of the last OpenSockets but Keep. Keep zero
// gives up all, also one that was kept before.
type CloseSockets struct{ Keep uint32 }

// SetMTU says which inner MTU the way in use carries, in bytes; before the first
// one it is taken to be BaseMTU. The value is true also below 1280: what the
// peer's pods are told for IPv6 is MTU6 of it.
type SetMTU struct{ MTU int }

// Handshake starts a WireGuard handshake over the way in use.
type Handshake struct{}

// Silent says that the way in use fell silent and is being checked: what it
// shares with others may be what is dead.
type Silent struct{}

func (SendProbe) action()    {}
func (Use) action()          {}
func (Announce) action()     {}
func (OpenSockets) action()  {}
func (CloseSockets) action() {}
func (SetMTU) action()       {}
func (Handshake) action()    {}
func (Silent) action()       {}
