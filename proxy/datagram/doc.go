// Package datagram reads datagrams without holding a buffer for them: a flow at rest
// waits with none, and takes one that all flows share when there is something to read.
package datagram
