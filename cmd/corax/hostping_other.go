//go:build !linux

package main

import (
	"errors"
	"net"
	"net/netip"
)

func dialHostPing(netip.Addr) (net.Conn, error) { return nil, errors.ErrUnsupported }
