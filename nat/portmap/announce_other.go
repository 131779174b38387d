//go:build !linux

package portmap

import (
	"errors"
	"net"
)

func listenAnnouncements() (*net.UDPConn, error) { return nil, errors.ErrUnsupported }
