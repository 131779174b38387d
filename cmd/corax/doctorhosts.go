package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// withHosts looks names up in a hosts file first, when one is given, as whoever has
// it as /etc/hosts does.
func withHosts(file string, next func(context.Context, string) ([]string, error)) func(context.Context, string) ([]string, error) {
	if file == "" {
		return next
	}
	return func(ctx context.Context, host string) ([]string, error) {
		text, err := readBounded(file)
		if err != nil {
			return nil, err
		}
		if list := lookHosts(text, host); len(list) > 0 {
			return list, nil
		}
		list, err := next(ctx, host)
		if err != nil {
			err = fmt.Errorf("not in %s, and: %w", file, err)
		}
		return list, err
	}
}

// lookHosts returns the addresses that a hosts file has for a name.
func lookHosts(text []byte, host string) []string {
	var list []string
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			if strings.EqualFold(strings.TrimSuffix(name, "."), strings.TrimSuffix(host, ".")) {
				list = append(list, addr.String())
				break
			}
		}
	}
	return list
}
