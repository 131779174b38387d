// Package offload cuts and joins TCP and UDP packets at a TUN device that
// speaks the virtio-net header: the kernel hands over up to 64 KiB at once
// (TSO, USO) and takes as much back.
//
//	TUN read  ─► [Header] ─► [Splitter]  ─► packets of the size the kernel asked for
//	TUN write ◄─ iovecs   ◄─ [Coalescer] ◄─ a batch of packets
//
// The package is pure: no file, no goroutine, no allocation once its tables
// exist. A [Coalescer] copies headers only; payloads are handed on as slices of
// the packets that came in. Nothing here trusts a length that it has not
// computed itself, whether it comes from the kernel or from a peer.
//
// The header is struct virtio_net_hdr of linux/virtio_net.h (VIRTIO 1.2,
// section 5.1.6), 10 bytes in native byte order. Checksums are those of RFC
// 1071; TCP is RFC 9293, UDP RFC 768, IPv6 RFC 8200.
package offload
