// Package dataplane says how packets move through one Corax agent. It holds
// the values that its subpackages exchange, and pure functions over them: no
// goroutine, no socket, no gVisor, no wireguard-go.
//
//	                 gateway node                                    node of the same domain
//	other domains                                             pods ── kernel routes ── TUN corax0
//	    │ UDP 4500                                                          │ vnet_hdr, TSO
//	┌───┴─────┐   ┌────────┐   ┌─────────────┐  UDP 4472, VNI 200   ┌───────┴──────────┐
//	│ wg Bind ├──►│ wg dev ├──►│   fabric    ├─────── VXLAN ───────►│ fabric (2 links) │
//	└─────────┘   └────────┘   │ LPM, TTL,   │                      └──────────────────┘
//	                           │ MTU, MSS    ├── TUN corax0 (own pods)
//	                           └──────┬──────┘
//	                              netstack: overlay address, ARP/ND, ICMP, local services
//
// One packet, from a pod on a plain node to a pod in another domain: kernel
// route, [corax/dataplane/hostnet] TUN read, [corax/dataplane/fabric],
// [corax/dataplane/vxlan] to the gateway node; there vxlan, fabric,
// [corax/dataplane/wg] (allowed IPs choose the peer, encrypt, send); on the
// remote gateway node wg, fabric, vxlan or TUN.
//
// Every arrow is a call of [Sender.Send] with a batch of [Packet]: synchronous,
// no copy, no queue. The only queues are the kernel's, wireguard-go's (bounded
// by wg), and the one out of gVisor. Whoever can drop a packet owns one counter
// per reason ([Counter]).
package dataplane
