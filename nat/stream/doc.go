// Package stream carries the datagrams of the tunnel over TLS 1.3 on TCP, for
// peers whose network lets no UDP out. A hub has a [Server], everybody else calls
// [Dial]; both end up with a [Conn], which takes datagrams without ever blocking
// and hands over those of the peer.
//
//	edge                                   hub
//	 │ TCP (or HTTP CONNECT, then)          │
//	 ├──────────── TLS 1.3 ─────────────────┤  certificate self-signed, not verified
//	 ├─ publicKey(32) MAC(32) ─────────────►│  within 5 s of the connection
//	 │◄──────────────────────────── MAC(32)─┤
//	 ├─ length(2) datagram, length(2) ... ─►│  big endian, both ways
//
// What makes it safe is the proof and not the certificate. Each MAC is
// HMAC-SHA256, with X25519 of the own private key and the peer's public key as
// its key, over the TLS exporter (RFC 8446 section 7.5, label EXPORTER-corax, no
// context, 32 bytes) and the word "client" or "hub". Who sits between the two
// has a TLS session with each, so two exporters, and can neither make a MAC nor
// pass one on. No certificate and no clock is involved. The datagrams are
// WireGuard's and encrypted once more; TLS keeps middleboxes content and strangers
// away from the hub's relay.
//
// TCP under a tunnel must not pile up packets, so the queue of a Conn is short in
// datagrams, bytes and time, and drops its oldest when it is full: the flows
// inside slow down as on any narrow link.
package stream
