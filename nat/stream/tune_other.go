//go:build !linux

package stream

import "net"

func tuneSystem(*net.TCPConn) {}
