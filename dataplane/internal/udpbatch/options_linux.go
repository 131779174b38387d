package udpbatch

import (
	"cmp"
	"fmt"

	"golang.org/x/sys/unix"
)

// options is what the kernel granted.
type options struct {
	gro, gso bool
}

// setOptions returns an error only for what the caller cannot do without:
// the rest is best effort.
func setOptions(fd int, v6 bool, cfg Config) (options, error) {
	var o options
	size := defaultBuffer
	if cfg.Light {
		size = lightBuffer
	}
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cmp.Or(cfg.RecvBuffer, size))
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cmp.Or(cfg.SendBuffer, size))
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	if err := setDiscovery(fd, v6); err != nil {
		return o, err
	}
	if cfg.PacketInfo {
		level, opt := unix.IPPROTO_IP, unix.IP_PKTINFO
		if v6 {
			level, opt = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
			return o, fmt.Errorf("packet info: %w", err)
		}
	}
	if v6 && cfg.NoCheck6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1); err != nil {
			return o, fmt.Errorf("accept zero checksums: %w", err)
		}
	}
	if cfg.plain || cfg.single {
		return o, nil
	}
	if !cfg.Light { // its slots take no super-datagram
		o.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	}
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	o.gso = err == nil
	return o, nil
}

func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// setDiscovery turns path MTU discovery off: outer packets leave without DF, so
// that a smaller link on the way fragments instead of dropping. Over IPv6 only
// the sender fragments, and Linux does that for its own link's MTU and for what
// ICMP told it; IPV6_MTU sets the size of the fragments then, and no limit.
func setDiscovery(fd int, v6 bool) error {
	if !v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
			return fmt.Errorf("path MTU discovery off: %w", err)
		}
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT); err != nil {
		return fmt.Errorf("path MTU discovery off: %w", err)
	}
	return nil
}
