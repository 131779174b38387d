// Package stun speaks STUN (RFC 8489) on the tunnel socket, in three parts that
// share one wire format. None of them owns a socket or a goroutine, but [Ask] and
// [Discover] at the end, which netcheck and tests use on sockets of their own.
//
// Probes are how two peers prove a path to each other. A probe is a Binding
// request whose USERNAME names receiver and sender, padded to the size that is
// probed, with MESSAGE-INTEGRITY-SHA256 under the receiver's probe key and
// FINGERPRINT last; its answer carries XOR-MAPPED-ADDRESS under the same key:
//
//	probe    header 20 | USERNAME 40 | PADDING 4+n | MESSAGE-INTEGRITY-SHA256 36 | FINGERPRINT 8
//	answer   header 20 | XOR-MAPPED-ADDRESS 12 or 24 | MESSAGE-INTEGRITY-SHA256 36 | FINGERPRINT 8
//
// An answer is never longer than its probe. [Parse] tells a probe from a plain
// STUN request by the USERNAME; [Message.Verify] checks the key.
//
// [Server] answers plain Binding requests of anybody: rate limited by source,
// with an answer of at most 44 bytes.
//
// [Discovery] is a pure machine that learns what kind of NAT (RFC 4787) is before
// the tunnel socket: mapping behaviour, filtering behaviour, port preservation,
// predictable port steps, hairpinning, mapping lifetime, or that UDP is blocked.
// It asks two or more servers, and uses what RFC 5780 adds (OTHER-ADDRESS,
// CHANGE-REQUEST, RESPONSE-PORT) where a server has it.
package stun
