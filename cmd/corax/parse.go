package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"corax/dataplane/key"
)

// Each function here makes the parser of one kind of setting, which stores into
// dst. Its errors name the text, and the caller adds where it came from.

func text(dst *string) func(string) error {
	return func(s string) error {
		if s == "" || strings.ContainsRune(s, 0) {
			return errors.New("empty")
		}
		*dst = s
		return nil
	}
}

// maxSocketPath is what fits into a sockaddr_un with its final zero on Linux.
const maxSocketPath = 107

func socketPath(dst *string) func(string) error {
	return func(s string) error {
		if len(s) > maxSocketPath {
			return fmt.Errorf("%d bytes long, a socket's path holds %d", len(s), maxSocketPath)
		}
		return text(dst)(s)
	}
}

func boolean(dst *bool) func(string) error {
	return func(s string) error {
		switch s {
		case "true":
			*dst = true
		case "false":
			*dst = false
		default:
			return fmt.Errorf("%q is neither true nor false", s)
		}
		return nil
	}
}

func switched(dst **bool) func(string) error {
	return func(s string) error {
		on := new(bool)
		if err := boolean(on)(s); err != nil {
			return err
		}
		*dst = on
		return nil
	}
}

func number(s string, low, high uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", s, low, high)
	}
	return n, nil
}

func port(dst *uint16) func(string) error {
	return func(s string) error {
		n, err := number(s, 1, 65535)
		if err == nil {
			*dst = uint16(n)
		}
		return err
	}
}

func vni(dst *uint32) func(string) error {
	return func(s string) error {
		n, err := number(s, 1, 1<<24-1)
		if err == nil {
			*dst = uint32(n)
		}
		return err
	}
}

func oneOf[T ~string](dst *T, allowed ...T) func(string) error {
	return func(s string) error {
		var names []string
		for _, a := range allowed {
			if s == string(a) {
				*dst = a
				return nil
			}
			names = append(names, string(a))
		}
		return fmt.Errorf("%q is none of %s", s, strings.Join(names, ", "))
	}
}

func level(dst *slog.Level) func(string) error {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return func(s string) error {
		l, ok := levels[s]
		if !ok {
			return fmt.Errorf("%q is none of debug, info, warn, error", s)
		}
		*dst = l
		return nil
	}
}

// deviceName checks what Linux accepts as the name of a network device. A "%"
// would make it choose a name of its own.
func deviceName(dst *string) func(string) error {
	return func(s string) error {
		bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/:%"'\`, r) }
		if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, bad) {
			return fmt.Errorf("%q is not the name of a network device", s)
		}
		*dst = s
		return nil
	}
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	return a.Unmap(), nil
}

func addr(dst *netip.Addr) func(string) error {
	return func(s string) error {
		a, err := parseAddr(s)
		if err == nil {
			*dst = a
		}
		return err
	}
}

// each splits a list, which a flag may hold between commas.
func each(s string, f func(string) error) error {
	var errs []error
	for item := range strings.SplitSeq(s, ",") {
		errs = append(errs, f(strings.TrimSpace(item)))
	}
	return errors.Join(errs...)
}

func addrs(dst *[]netip.Addr) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			a, err := parseAddr(s)
			if err == nil {
				*dst = append(*dst, a)
			}
			return err
		})
	}
}

func prefixes(dst *[]netip.Prefix) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				a, err := parseAddr(s)
				if err != nil {
					return fmt.Errorf("%q is neither a prefix nor an address", s)
				}
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if p != p.Masked() {
				return fmt.Errorf("%q has bits after its prefix: %v is meant?", s, p.Masked())
			}
			*dst = append(*dst, p)
			return nil
		})
	}
}

// minRotation is the least age at which a key is changed: each change costs a
// second of traffic.
const minRotation = time.Hour

func period(dst *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration such as 720h", s)
		case d != 0 && d < minRotation:
			return fmt.Errorf("%v is less than %v", d, minRotation)
		}
		*dst = d
		return nil
	}
}

func servers(dst *[]hostPort) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			host, portText, err := net.SplitHostPort(s)
			if err != nil || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' }) {
				return fmt.Errorf("%q is not HOST:PORT", s)
			}
			server := hostPort{Host: host}
			if err := port(&server.Port)(portText); err != nil {
				return err
			}
			*dst = append(*dst, server)
			return nil
		})
	}
}

// listener parses IP:PORT; ":PORT" leaves the address to fillAddrs, "off" means
// that nothing listens.
func listener(dst *netip.AddrPort) func(string) error {
	return func(s string) error {
		if s == "off" {
			*dst = netip.AddrPort{}
			return nil
		}
		host, portText, err := net.SplitHostPort(s)
		if err != nil {
			return fmt.Errorf("%q is not IP:PORT", s)
		}
		var p uint16
		if err := port(&p)(portText); err != nil {
			return err
		}
		var a netip.Addr
		if host != "" {
			if a, err = parseAddr(host); err != nil {
				return err
			}
		}
		*dst = netip.AddrPortFrom(a, p)
		return nil
	}
}

// presharedFile reads the secret from a file. One line end after it is not part
// of it, since editors put one there.
func presharedFile(dst *key.Preshared, readFile func(string) ([]byte, error)) func(string) error {
	return func(path string) error {
		secret, err := readFile(path)
		if err != nil {
			return err
		}
		s := strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
		if s == "" {
			return fmt.Errorf("%s is empty", path)
		}
		*dst = key.PresharedFromSecret([]byte(s))
		return nil
	}
}
