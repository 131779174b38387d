package proxy

import (
	"context"
	"net"
	"strconv"
)

// OverlayPort is the TCP port of the overlay addresses on which edges listen.
const OverlayPort = 10280

// Target is a TCP port of a node. The zero Target is none.
type Target struct {
	// Node is the name of the Kubernetes node, in its own spelling.
	Node string
	Port uint16
}

// String returns node:port.
func (t Target) String() string { return net.JoinHostPort(t.Node, strconv.Itoa(int(t.Port))) }

// A Dialer opens connections to nodes. Dial may be called from several goroutines
// at once. Its error is a [*Refusal], also when ctx ends. The connection has
// CloseWrite, and its address says nothing about the node; whoever dialled closes
// it.
type Dialer interface {
	Dial(ctx context.Context, t Target) (net.Conn, error)
}

// CloseWriter is a connection that can end one direction and keep the other.
type CloseWriter interface {
	net.Conn
	CloseWrite() error
}
