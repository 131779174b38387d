// Package wg runs WireGuard in userspace: wireguard-go's device between our own
// tun.Device (the fabric's packets) and our own conn.Bind (one UDP port, both
// families, batched).
//
//	fabric ── Device.Send ──► link ──► wireguard-go ──► bind ──► udpbatch
//	fabric ◄─ Config.Receive ─ link ◄── wireguard-go ◄── bind ◄── udpbatch
//	                                                     │  ▲ └─► relayed by label
//	                                       Config.Other ◄┘  └ Inject (streams)
//
// What the bind adds to wireguard-go:
//
//   - A peer is one endpoint object for life, so a change of its path never
//     touches its session. Packets from the path in use carry that object.
//     Packets from elsewhere carry a source, and when wireguard-go sends to a
//     source it has authenticated it: only then the path moves there.
//   - The peer of a packet is found by the receiver index, which the bind notes
//     when a handshake message leaves, or for an initiation by its static key.
//   - A path is an address seen from one of several sockets, a stream over TCP,
//     or a label at a peer that relays. Somebody else may choose it and pin it;
//     then [Config.Proven] tells of packets that came another way.
//   - Relay frames (0xC5, a 56-bit label, a datagram) go on inside the receive
//     loop, with the next hop's label, in batches and without waiting. A label
//     is good from the place alone where its peer is reached. When not
//     everything fits, what a pair sends above its fair share goes first.
//   - What comes by a stream or a label must be of the peer that this names.
//   - STUN messages go to somebody else ([Config.Other]).
//   - A handshake message without a path waits up to five seconds for one.
//   - With an allow list ([Device.SetAllow]) nothing is taken from elsewhere, and
//     nothing sent there.
//
// What the link adds: bounds. wireguard-go's buffer pools have none, so the
// number of packets inside it is limited where we own both ends, per peer too:
// a peer without a session cannot fill the memory or delay the others.
//
// Protocol: https://www.wireguard.com/papers/wireguard.pdf (sections as cited);
// user API: https://www.wireguard.com/xplatform/.
package wg
