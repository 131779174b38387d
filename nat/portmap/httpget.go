package portmap

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/huin/goupnp"
)

const (
	httpTimeout = 2 * time.Second // one request with its answer
	maxBody     = 128 << 10       // bytes of an answer that are read
	maxHeader   = 16 << 10
)

// httpClient speaks to the gateway and to nobody else, whatever URL it is given:
// no other address is dialed, no proxy used, no redirect followed.
func (c *client) httpClient(gateway netip.Addr) http.Client {
	t := &http.Transport{
		DisableKeepAlives:      true, // no goroutine outlives a request
		DisableCompression:     true, // what is read is what was sent: no bombs
		MaxResponseHeaderBytes: maxHeader,
		DialContext: func(ctx context.Context, _, addr string) (conn net.Conn, err error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil || to.Addr() != gateway {
				return nil, fmt.Errorf("%s is not on the router", addr)
			}
			err = c.open(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, "tcp4", addr)
				return err
			})
			return conn, err
		},
	}
	return http.Client{
		Transport:     bounded{t},
		Timeout:       httpTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts bodies off.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

// describe reads the description of a device.
func describe(ctx context.Context, h *http.Client, at *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("description: HTTP status %d", resp.StatusCode)
	}
	return parseDescription(resp.Body, at)
}

func parseDescription(r io.Reader, at *url.URL) (*goupnp.RootDevice, error) {
	d := xml.NewDecoder(r)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	// Only ASCII matters to us; the name of the device may be in any charset.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	d.Strict = false
	root := new(goupnp.RootDevice)
	if err := d.Decode(root); err != nil {
		return nil, fmt.Errorf("description: %w", err)
	}
	base := at
	if s := strings.TrimSpace(root.URLBaseStr); s != "" {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("description: URLBase: %w", err)
		}
		base = u
	}
	root.SetURLBase(base)
	return root, nil
}
