package udpbatch

import (
	"net/netip"
	"sync/atomic"

	"corax/dataplane"
)

// Config says what socket [Listen] opens. Only Addr is required.
type Config struct {
	// Addr is the bound address; its family is the socket's. An IPv6 address,
	// "::" included, binds IPv6 only. Port 0 means any free port.
	Addr netip.AddrPort
	// NoCheck6 accepts datagrams over IPv6 whose UDP checksum is zero
	// (RFC 6935), as VXLAN senders make them.
	NoCheck6 bool
	// PacketInfo fills Datagram.Local and honours Message.Local.
	PacketInfo bool
	// RecvBuffer and SendBuffer are the kernel's queues in bytes; zero means
	// 4 MiB. Best effort: without privilege the system's limit caps them.
	RecvBuffer, SendBuffer int
	// Light makes a socket that little is expected of: it takes datagrams of
	// at most 9 KiB, one a system call, and both queues default to 64 KiB. It
	// costs about as much memory. Conn.Promote makes it one like the others.
	Light bool

	// Slots bounds the buffers of 64 KiB that are read into, from 2 to 16; zero
	// means 16. They are made as traffic needs them.
	Slots int

	// plain does without UDP_GRO and UDP_SEGMENT, single without recvmmsg and
	// sendmmsg too: an old kernel, for tests.
	plain, single bool
}

// Datagram is one datagram received.
type Datagram struct {
	// Data is valid until the next Read of the same Conn; the reader may
	// change it until then.
	Data []byte
	// From is the sender. Its zone, if any, is the interface index.
	From netip.AddrPort
	// Local is the address that the datagram was sent to, with
	// Config.PacketInfo; otherwise the zero Addr.
	Local netip.Addr
}

// Message is one datagram to send: Header and Payload, one after the other.
// Either may be nil. Write only reads them, and keeps neither.
// Who makes many sets the fields one by one, see [dataplane.Packet].
type Message struct {
	To netip.AddrPort
	// Local is the source address to use, with Config.PacketInfo. The zero
	// Addr leaves the choice to the kernel.
	Local           netip.Addr
	Header, Payload []byte
}

// Options are those of one datagram.
type Options struct {
	// TTL is the time to live or hop limit; zero means the system's.
	TTL int
	// DF forbids to fragment the datagram on its way: with IPv6 here, as nobody
	// else may.
	DF bool
}

const (
	defaultBuffer = 4 << 20
	lightBuffer   = 64 << 10
)

// counters are those of one Conn; every field is updated atomically.
type counters struct {
	rxDatagrams, rxCalls, rxErrors   atomic.Uint64
	rxOverflow, rxTruncated          atomic.Uint64
	txDatagrams, txCalls             atomic.Uint64
	txTooBig, txUnreachable          atomic.Uint64
	txDenied, txRefused              atomic.Uint64
	txFull, txNoBuffer               atomic.Uint64
	txFamily, txClosed, txOther      atomic.Uint64
	gsoNoChecksum, gsoSize, gsoOther atomic.Uint64
}

func (c *counters) list(prefix string) []dataplane.Counter {
	row := func(name, reason string, v *atomic.Uint64) dataplane.Counter {
		return dataplane.Counter{Name: prefix + name, Reason: reason, Value: v.Load()}
	}
	return []dataplane.Counter{
		row("_receive_datagrams_total", "", &c.rxDatagrams),
		row("_receive_calls_total", "", &c.rxCalls),
		row("_receive_errors_total", "", &c.rxErrors),
		row("_receive_drop_total", "queue_full", &c.rxOverflow),
		row("_receive_drop_total", "truncated", &c.rxTruncated),
		row("_send_datagrams_total", "", &c.txDatagrams),
		row("_send_calls_total", "", &c.txCalls),
		row("_send_drop_total", "too_big", &c.txTooBig),
		row("_send_drop_total", "unreachable", &c.txUnreachable),
		row("_send_drop_total", "denied", &c.txDenied),
		row("_send_drop_total", "refused", &c.txRefused),
		row("_send_drop_total", "queue_full", &c.txFull),
		row("_send_drop_total", "no_buffer", &c.txNoBuffer),
		row("_send_drop_total", "family", &c.txFamily),
		row("_send_drop_total", "closed", &c.txClosed),
		row("_send_drop_total", "other", &c.txOther),
		row("_gso_fallback_total", "no_checksum_offload", &c.gsoNoChecksum),
		row("_gso_fallback_total", "size", &c.gsoSize),
		row("_gso_fallback_total", "other", &c.gsoOther),
	}
}
