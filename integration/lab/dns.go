//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ServeDNS answers A and AAAA queries over UDP port 53 on an address of the
// host, from a table of names. It ends with the lab.
func (h *Host) ServeDNS(at netip.Addr, names map[string][]netip.Addr) error {
	c, err := h.ListenUDP(netip.AddrPortFrom(at, 53))
	if err != nil {
		return err
	}
	table := make(map[string][]netip.Addr, len(names))
	for name, addrs := range names {
		table[canonical(name)] = addrs
	}
	go serveDNS(c, table) // ends when the lab closes c
	return nil
}

// Lookup asks the DNS server at an address, from the host, for the addresses of
// a name; network is "ip4" or "ip6".
func (h *Host) Lookup(ctx context.Context, server netip.Addr, network, name string) ([]netip.Addr, error) {
	r := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return h.Dial(ctx, network, netip.AddrPortFrom(server, 53).String())
		},
	}
	addrs, err := r.LookupNetIP(ctx, network, canonical(name))
	if err != nil {
		return nil, fmt.Errorf("lab: from %s: %w", h.Name, err)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// canonical is a name in lower case with its final dot, which also keeps the
// resolver from trying the machine's search domains.
func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + "."
}

func serveDNS(c *net.UDPConn, table map[string][]netip.Addr) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		if answer, err := answerDNS(buf[:n], table); err == nil {
			_, _ = c.WriteToUDPAddrPort(answer, from)
		}
	}
}

// answerDNS makes the answer to a query with one question.
func answerDNS(query []byte, table map[string][]netip.Addr) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	if head.Response {
		return nil, errors.New("not a query")
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	addrs, known := table[strings.ToLower(q.Name.String())]
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: head.ID, Response: true, Authoritative: true,
			RecursionDesired: head.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			r.Body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		answer.Answers = append(answer.Answers, r)
	}
	return answer.Pack()
}
