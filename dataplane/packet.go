package dataplane

import "net/netip"

// Packet is one IP packet, version 4 or 6, on its way through the agent.
//
// Who makes many sets the fields one by one: a literal is put together on the
// stack and copied in wider pieces than it was written, and the processor waits for
// that (docs/performance.md).
type Packet struct {
	// Data is the packet from its first IP header byte to its last byte. It
	// aliases a buffer of the caller: the callee may change the bytes, must
	// not append, and must not keep the slice after it returns.
	Data []byte
	// VTEP is the underlay address of a VXLAN tunnel endpoint: the sender of
	// a packet that came in over VXLAN, the next hop of one that goes out
	// over VXLAN. Otherwise the zero Addr.
	VTEP netip.Addr
}

// Bounds of a super-datagram (UDP_SEGMENT): what stays below 64 KiB with the headers of
// IPv6, UDP, Ethernet and VLAN, and what Linux before 6.9 cuts one into.
const (
	MaxSuperBytes   = 65450
	MaxSuperPackets = 64
)

// Batch returns how many packets of size bytes are best handed over at once when n
// may be: as many as leave in super-datagrams that are full or nearly so, since the
// kernel walks a full one through its stack for hardly more than one of a few packets.
// It is n when they do not fill even one.
func Batch(n, size int) int {
	const header = 56 // a packet grows by no more: WireGuard, its padding, a relay's label
	run := min(MaxSuperPackets, MaxSuperBytes/(size+header))
	if run == 0 || run > n {
		return n
	}
	return n - n%run
}

// A Sender takes batches of packets: the fabric's view of WireGuard, VXLAN, the
// TUN and netstack, and their view of the fabric.
//
// Send consumes the whole batch before it returns: what it cannot deliver it
// drops and counts. It may block for as long as a full socket or a full
// WireGuard pipeline needs (milliseconds), never on control. The batch and its
// bytes belong to the caller again when it returns. Unless a type says
// otherwise Send may be called from several goroutines at once.
type Sender interface {
	Send(batch []Packet)
}

// SenderFunc makes a function a Sender.
type SenderFunc func(batch []Packet)

// Send calls f.
func (f SenderFunc) Send(batch []Packet) { f(batch) }

// Counter is the present value of one counter, as status and metrics show it.
type Counter struct {
	// Name is the full metric name without "corax_", for example
	// "vxlan_drop_total". Counters end in _total, sizes in _bytes.
	Name string
	// Reason tells counters of one name apart, for example "unknown_vtep".
	// It may be empty.
	Reason string
	Value  uint64
}
