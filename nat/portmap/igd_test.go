package portmap

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/huin/goupnp"

	"corax/nat/portmap/portmaptest"
)

func TestIGDQuirks(t *testing.T) {
	t.Parallel()
	const v2 = "WANIPConnection:2"
	tests := []struct {
		name     string
		igd      portmaptest.IGD
		occupied bool
		lease    uint32
		port     uint16 // 0: any but the one asked for
		err      int
	}{
		{"plain", portmaptest.IGD{}, false, 7200, 5500, 0},
		{"only leases without end", portmaptest.IGD{PermanentOnly: true}, false, 0, 5500, 0},
		{"the same of version 2", portmaptest.IGD{Service: v2, PermanentOnly: true}, false, 0, 5500, 0},
		{"port taken", portmaptest.IGD{}, true, 7200, 0, 0},
		{"port taken, version 2", portmaptest.IGD{Service: v2}, true, 7200, 0, 0},
		{"version 2 without AddAnyPortMapping", portmaptest.IGD{Service: v2, Errors: map[string]int{"AddAnyPortMapping": igdInvalidAction}}, false, 7200, 5500, 0},
		{"does not tell whose a port is", portmaptest.IGD{Errors: map[string]int{"GetSpecificPortMappingEntry": igdInvalidAction}}, true, 7200, 0, 0},
		{"refuses all", portmaptest.IGD{Errors: map[string]int{"AddPortMapping": igdNotAuthorized}}, false, 0, 0, igdNotAuthorized},
		{"every port taken", portmaptest.IGD{Errors: map[string]int{"AddPortMapping": igdConflict}}, false, 0, 0, igdConflict},
		{"only the same port", portmaptest.IGD{Errors: map[string]int{"AddPortMapping": igdSamePort}}, false, 0, 0, igdSamePort},
		{"no external address", portmaptest.IGD{Errors: map[string]int{"GetExternalIPAddress": igdActionFailed}}, false, 0, 0, igdActionFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gw := startGateway(t, portmaptest.Config{UPnP: true, IGD: tt.igd})
			if tt.occupied {
				gw.Occupy(5500)
			}
			c := testClient()
			g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 5500})
			if tt.err != 0 {
				if e, ok := errors.AsType[*RefusedError](err); !ok || e.Code != tt.err {
					t.Fatalf("%v, want refusal %d", err, tt.err)
				}
				if n := gw.Requests("AddPortMapping"); n > 2*maxPorts {
					t.Errorf("asked %d times", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if port := g.external.Port(); tt.port != 0 && port != tt.port || tt.port == 0 && port == 5500 {
				t.Errorf("port %d", port)
			}
			ms := gw.Mappings()
			last := ms[len(ms)-1]
			if last.Lifetime != tt.lease || last.Internal != netip.MustParseAddrPort("127.0.0.1:4500") || last.External != g.external.Port() {
				t.Errorf("the router has %+v, granted %v", ms, g.external)
			}
			if (g.lifetime == 0) != (tt.lease == 0) {
				t.Errorf("lifetime %v with lease %d", g.lifetime, tt.lease)
			}
			if err := c.remove(t.Context(), g); err != nil {
				t.Error(err)
			}
			if tt.occupied != (len(gw.Mappings()) == 1) {
				t.Errorf("left at the router: %+v", gw.Mappings())
			}
		})
	}
}

// TestIGDPointsElsewhere: a router, or who answers for it, cannot make us fetch
// from or post to another address.
func TestIGDPointsElsewhere(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	victim := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		_, _ = io.WriteString(w, testDescription("", "/ctl"))
	}))
	t.Cleanup(victim.Close)
	tests := []struct {
		name string
		igd  portmaptest.IGD
		drop bool // counted as a bad URL
	}{
		{"location", portmaptest.IGD{Location: victim.URL + "/desc.xml"}, true},
		{"control URL", portmaptest.IGD{ControlURL: victim.URL + "/ctl"}, true},
		{"control URL without scheme", portmaptest.IGD{ControlURL: strings.TrimPrefix(victim.URL, "http:") + "/ctl"}, true},
		{"URL base", portmaptest.IGD{URLBase: victim.URL}, true},
		{"redirect", portmaptest.IGD{Serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, victim.URL, http.StatusTemporaryRedirect)
		}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gw := startGateway(t, portmaptest.Config{UPnP: true, IGD: tt.igd})
			c := testClient()
			if _, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 4500}); err == nil {
				t.Error("mapped")
			}
			if (dropped(c, dropURL) > 0) != tt.drop {
				t.Errorf("%d bad URLs counted", dropped(c, dropURL))
			}
			if n := hits.Swap(0); n != 0 {
				t.Errorf("the other host was asked %d times", n)
			}
		})
	}
}

// TestHTTPClientStays: whatever URL it is given, only the router is dialed.
func TestHTTPClientStays(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	victim := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(victim.Close)
	h := testClient().httpClient(netip.MustParseAddr("127.0.0.2"))
	for _, u := range []string{victim.URL, strings.Replace(victim.URL, "127.0.0.1", "localhost", 1)} {
		resp, err := h.Get(u)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s was fetched", u)
		}
	}
	if hits.Load() != 0 {
		t.Error("the other host was asked")
	}
}

// TestIGDEndless: bodies without end and devices that hang are cut off.
func TestIGDEndless(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var sent atomic.Int64
	tests := []struct {
		name  string
		serve http.HandlerFunc
	}{
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			chunk := []byte(strings.Repeat("a", 1<<15))
			_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>`)
			for sent.Load() < 1<<26 {
				n, err := w.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}},
		{"hangs", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		{"not XML", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x00\x01<<<>") }},
		{"XML of something else", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><body>login</body></html>") }},
		{"404", http.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gw := startGateway(t, portmaptest.Config{UPnP: true, IGD: portmaptest.IGD{Serve: tt.serve}})
			if _, err := testClient().findIGD(t.Context(), gw.Addr()); err == nil {
				t.Error("found a device")
			}
		})
	}
	if n := sent.Load(); n == 0 || n >= 1<<24 {
		t.Errorf("%d bytes were taken", n)
	}
}

// TestIGDMoves: a device that restarted on another port is found again.
func TestIGDMoves(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{UPnP: true})
	c := testClient()
	g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 4500})
	if err != nil {
		t.Fatal(err)
	}
	gone := *g.igd
	svc := testService(t, c, gw.Addr())
	svc[0][0].SOAPClient.EndpointURL.Host = gw.Addr().String() + ":1"
	gone.conn = connections(svc)[0]
	g.igd = &gone
	if g, err = c.renew(t.Context(), g, ask{4500, 4500}); err != nil || g.igd == &gone {
		t.Errorf("%v; the old device %t", err, g.igd == &gone)
	}
}

func testService(t *testing.T, c *client, gateway netip.Addr) [][]goupnp.ServiceClient {
	t.Helper()
	at, err := c.search(t.Context(), gateway)
	if err != nil {
		t.Fatal(err)
	}
	h := c.httpClient(gateway)
	root, err := describe(t.Context(), &h, at)
	if err != nil {
		t.Fatal(err)
	}
	return c.services(root, gateway)
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"Zyxel 5":                     "Zyxel 5",
		"a\x1b[31mb\nc":               "a[31mbc",
		strings.Repeat("x", 100):      strings.Repeat("x", maxText),
		strings.Repeat("x", 63) + "é": strings.Repeat("x", 63),
		"\xff\xfe" + "Straße":         "Straße",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
