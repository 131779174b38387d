package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	ssdpPort  = 1900
	ssdpGroup = "239.255.255.250"
	maxURL    = 1024
)

// searches are what we ask for. A device of version 2 answers to version 1 too,
// except those that do not.
func searches() [2][]byte {
	one := func(version string) []byte {
		return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n" +
			"MAN: \"ssdp:discover\"\r\nMX: 1\r\n" +
			"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:" + version + "\r\n\r\n")
	}
	return [2][]byte{one("1"), one("2")}
}

// parseSSDP returns where the description of an IGD is. It must be on the host
// that answered.
func parseSSDP(b []byte, gateway netip.Addr) (*url.URL, dropReason) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, dropSSDP
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("ST"), "InternetGatewayDevice") {
		return nil, dropSSDP
	}
	u, err := url.Parse(r.Header.Get("Location"))
	if err != nil || !onHost(u, gateway) {
		return nil, dropURL
	}
	return u, dropNot
}

// onHost reports whether a URL is plain HTTP to the address, written as a
// literal: a name could mean another host at every look.
func onHost(u *url.URL, host netip.Addr) bool {
	if u.Scheme != "http" || u.User != nil || u.Opaque != "" || len(u.String()) > maxURL {
		return false
	}
	if a, err := netip.ParseAddrPort(u.Host); err == nil {
		return a.Addr() == host && a.Port() != 0
	}
	a, err := netip.ParseAddr(u.Host) // port 80; IPv6 never comes here
	return err == nil && a == host
}

// search finds the IGD of the gateway. Multicast is what old devices listen to,
// and a question to the gateway alone is what gets through most switches and
// pods; a loopback gateway is a test's, which has no multicast to send.
func (c *client) search(ctx context.Context, gateway netip.Addr) (*url.URL, error) {
	local, err := c.local(gateway)
	if err != nil {
		return nil, err
	}
	conn, err := c.listenUDP(netip.AddrPortFrom(local, 0))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	to := []netip.AddrPort{netip.AddrPortFrom(gateway, ssdpPort)}
	if !gateway.IsLoopback() {
		to = append(to, netip.AddrPortFrom(netip.MustParseAddr(ssdpGroup), ssdpPort))
	}
	// The last wait leaves room for MX: a device may take its time up to then.
	for _, wait := range []time.Duration{250 * time.Millisecond, 1250 * time.Millisecond} {
		sendAll(conn, to)
		u, err := c.awaitSSDP(conn, time.Now().Add(wait), gateway)
		if u != nil || err != nil {
			return u, exchangeError(ctx, err)
		}
	}
	return nil, ErrSilent
}

// sendAll ignores errors: one of the addresses may work where the other cannot.
func sendAll(conn *net.UDPConn, to []netip.AddrPort) {
	for _, a := range to {
		for _, s := range searches() {
			_, _ = conn.WriteToUDPAddrPort(s, a)
		}
	}
}

func (c *client) awaitSSDP(conn *net.UDPConn, until time.Time, gateway netip.Addr) (*url.URL, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case err != nil:
			return nil, err
		case from.Addr().Unmap() != gateway:
			c.drops.add(dropSource)
			continue
		}
		u, reason := parseSSDP(buf[:n], gateway)
		if reason == dropNot {
			return u, nil
		}
		c.drops.add(reason)
	}
}

func (c *client) listenUDP(at netip.AddrPort) (conn *net.UDPConn, err error) {
	err = c.open(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	return conn, err
}
