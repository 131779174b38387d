// Package udpbatch reads and writes one UDP socket in batches: recvmmsg with
// UDP_GRO in, sendmmsg with UDP_SEGMENT out, each datagram an optional header
// and a payload in separate iovecs. wg and vxlan share it. Where the kernel
// refuses an offload it goes on without it, at run time, and counts that.
package udpbatch
