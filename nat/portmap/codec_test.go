package portmap

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	// RFC 6887 section 11.1, figure 9, and its answer, figure 10.
	mapRequest4 = `02010000 00001c20 00000000000000000000ffffc0a84d02
		000102030405060708090a0b 11000000 1194 2328 00000000000000000000ffff00000000`
	mapAnswer4 = `02810000 00000e10 00015180 000000000000000000000000
		000102030405060708090a0b 11000000 1194 a001 00000000000000000000ffffcb007101`
	mapRequest6 = `02010000 00000000 20010db8000000000000000000000002
		000102030405060708090a0b 11000000 1194 0000 00000000000000000000000000000000`
	announceAnswer = `02800000 00000000 0000002a 000000000000000000000000`
	onlyPMP        = `00810001 00015180`
	pmpExternalOK  = `00800000 00015180 cb007101`
	pmpMapOK       = `00810000 00015180 1194 a001 00000e10`
	pmpRefused     = `00810002 00015180`
)

func testNonce() pcpNonce { return pcpNonce{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} }

func TestAppendPCP(t *testing.T) {
	tests := []struct {
		name string
		req  pcpRequest
		want string
	}{
		{"map", pcpRequest{pcpMap, 7200, netip.MustParseAddr("192.168.77.2"), testNonce(), 4500, 9000}, mapRequest4},
		{"delete a pinhole", pcpRequest{pcpMap, 0, netip.MustParseAddr("2001:db8::2"), testNonce(), 4500, 0}, mapRequest6},
		{"announce", pcpRequest{opcode: pcpAnnounce, client: netip.MustParseAddr("192.168.77.2")}, "02000000 00000000 00000000000000000000ffffc0a84d02"},
	}
	for _, tt := range tests {
		if got, want := appendPCP(nil, tt.req), unhex(t, tt.want); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", tt.name, got, want)
		}
	}
}

func TestAppendPMP(t *testing.T) {
	if got, want := appendPMPMap(nil, 4500, 9000, 7200), unhex(t, "00010000 1194 2328 00001c20"); !bytes.Equal(got, want) {
		t.Errorf("map: got %x, want %x", got, want)
	}
	if got, want := appendPMPExternal(nil), []byte{0, 0}; !bytes.Equal(got, want) {
		t.Errorf("external: got %x, want %x", got, want)
	}
}

var cmpAddr = cmpopts.EquateComparable(netip.Addr{})

func TestParsePCP(t *testing.T) {
	mapped := pcpAnswer{
		opcode: pcpMap, lifetime: time.Hour, epoch: 86400, mapped: true, nonce: testNonce(), proto: protoUDP,
		internal: 4500, externalPort: 40961, external: netip.MustParseAddr("203.0.113.1"),
	}
	quota := mapped
	quota.result = pcpUserExQuota
	tests := []struct {
		name   string
		in     string
		want   pcpAnswer
		reason dropReason
	}{
		{"mapped", mapAnswer4, mapped, dropNot},
		{"quota", strings.Replace(mapAnswer4, "02810000", "0281000a", 1), quota, dropNot},
		{"announce", announceAnswer, pcpAnswer{epoch: 42}, dropNot},
		{"a NAT-PMP server", onlyPMP, pcpAnswer{opcode: pcpMap, result: pcpUnsuppVersion}, dropNot},
		{"a server of version 1", "01810001 00000000 00000000 000000000000000000000000", pcpAnswer{opcode: pcpMap, result: pcpUnsuppVersion}, dropNot},
		{"refused without our data", "02810002 0000001e 00000001 000000000000000000000000", pcpAnswer{opcode: pcpMap, result: pcpNotAuthorized, lifetime: 30 * time.Second, epoch: 1}, dropNot},
		{"our own request", mapRequest4, pcpAnswer{}, dropNotResponse},
		{"empty", "", pcpAnswer{}, dropShort},
		{"short header", "02810000 00000e10", pcpAnswer{}, dropShort},
		{"success without data", "02810000 00000e10 00015180 000000000000000000000000", pcpAnswer{}, dropShort},
		{"odd size", announceAnswer + "00", pcpAnswer{}, dropSize},
		{"too long", announceAnswer + strings.Repeat("00000000", 300), pcpAnswer{}, dropSize},
		{"version 3", "03" + announceAnswer[2:], pcpAnswer{}, dropVersion},
		{"NAT-PMP success", pmpMapOK, pcpAnswer{}, dropVersion},
	}
	for _, tt := range tests {
		got, reason := parsePCP(unhex(t, tt.in))
		if reason != tt.reason {
			t.Errorf("%s: drop %v, want %v", tt.name, reason, tt.reason)
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(pcpAnswer{}), cmpAddr); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestPCPAnswers(t *testing.T) {
	req := pcpRequest{pcpMap, 7200, netip.MustParseAddr("192.168.77.2"), testNonce(), 4500, 9000}
	right, _ := parsePCP(unhex(t, mapAnswer4))
	with := func(f func(*pcpAnswer)) pcpAnswer {
		a := right
		f(&a)
		return a
	}
	tests := []struct {
		name string
		a    pcpAnswer
		want dropReason
	}{
		{"right", right, dropNot},
		{"wrong nonce", with(func(a *pcpAnswer) { a.nonce[11]++ }), dropNonce},
		{"another protocol", with(func(a *pcpAnswer) { a.proto = 6 }), dropMismatch},
		{"another port", with(func(a *pcpAnswer) { a.internal++ }), dropMismatch},
		{"another opcode", with(func(a *pcpAnswer) { a.opcode = pcpAnnounce }), dropMismatch},
		{"unsupported version", pcpAnswer{opcode: pcpMap, result: pcpUnsuppVersion}, dropNot},
		{"a refusal that anybody could send", pcpAnswer{opcode: pcpMap, result: pcpNotAuthorized}, dropNonce},
	}
	for _, tt := range tests {
		if got := tt.a.answers(req); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestParsePMP(t *testing.T) {
	tests := []struct {
		name   string
		in     string
		want   pmpAnswer
		reason dropReason
	}{
		{"external", pmpExternalOK, pmpAnswer{epoch: 86400, address: netip.MustParseAddr("203.0.113.1")}, dropNot},
		{"mapped", pmpMapOK, pmpAnswer{opcode: pmpMapUDP, epoch: 86400, internal: 4500, external: 40961, lifetime: time.Hour}, dropNot},
		{"refused", pmpRefused, pmpAnswer{opcode: pmpMapUDP, result: pmpNotAuthorized, epoch: 86400}, dropNot},
		{"request", "0000", pmpAnswer{}, dropShort},
		{"request of a mapping", "00010000 1194 2328 00001c20", pmpAnswer{}, dropNotResponse},
		{"external without address", "00800000 00015180", pmpAnswer{}, dropShort},
		{"mapping cut off", "00810000 00015180 1194 a001 0000", pmpAnswer{}, dropShort},
		{"PCP", announceAnswer, pmpAnswer{}, dropVersion},
		{"a TCP mapping", "00820000 00015180 1194 a001 00000e10", pmpAnswer{}, dropMismatch},
	}
	for _, tt := range tests {
		got, reason := parsePMP(unhex(t, tt.in))
		if reason != tt.reason {
			t.Errorf("%s: drop %v, want %v", tt.name, reason, tt.reason)
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(pmpAnswer{}), cmpAddr); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

func ssdpAnswer(location string) string {
	return "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: " + location + "\r\n\r\n"
}

func TestParseSSDP(t *testing.T) {
	gw := netip.MustParseAddr("192.168.1.1")
	tests := []struct {
		name, in, want string
		reason         dropReason
	}{
		{"right", ssdpAnswer("http://192.168.1.1:5000/rootDesc.xml"), "http://192.168.1.1:5000/rootDesc.xml", dropNot},
		{"port 80", ssdpAnswer("http://192.168.1.1/d.xml"), "http://192.168.1.1/d.xml", dropNot},
		{"another host", ssdpAnswer("http://192.168.1.2:5000/d.xml"), "", dropURL},
		{"metadata service", ssdpAnswer("http://169.254.169.254/latest/"), "", dropURL},
		{"loopback", ssdpAnswer("http://127.0.0.1:10250/"), "", dropURL},
		{"a name", ssdpAnswer("http://router.lan:5000/d.xml"), "", dropURL},
		{"name in front", ssdpAnswer("http://192.168.1.1@10.0.0.1/d.xml"), "", dropURL},
		{"user", ssdpAnswer("http://a:b@192.168.1.1/d.xml"), "", dropURL},
		{"odd spelling of an address", ssdpAnswer("http://0300.0250.1.1/d.xml"), "", dropURL},
		{"mapped address", ssdpAnswer("http://[::ffff:192.168.1.1]:80/"), "", dropURL},
		{"port 0", ssdpAnswer("http://192.168.1.1:0/"), "", dropURL},
		{"other scheme", ssdpAnswer("file:///etc/passwd"), "", dropURL},
		{"https", ssdpAnswer("https://192.168.1.1/d.xml"), "", dropURL},
		{"no location", ssdpAnswer(""), "", dropURL},
		{"long", ssdpAnswer("http://192.168.1.1/" + strings.Repeat("a", maxURL)), "", dropURL},
		{"a printer", strings.Replace(ssdpAnswer("http://192.168.1.1/"), "InternetGatewayDevice", "Printer", 1), "", dropSSDP},
		{"an error", strings.Replace(ssdpAnswer("http://192.168.1.1/"), "200 OK", "500 No", 1), "", dropSSDP},
		{"a search", string(searches()[0]), "", dropSSDP},
		{"garbage", "\x00\x01\x02", "", dropSSDP},
	}
	for _, tt := range tests {
		u, reason := parseSSDP([]byte(tt.in), gw)
		got := ""
		if u != nil {
			got = u.String()
		}
		if got != tt.want || reason != tt.reason {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, reason, tt.want, tt.reason)
		}
	}
}

func TestPublic(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "203.0.113.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2001:db8::1", "2a00::1", "::ffff:8.8.8.8"} {
		if !public(netip.MustParseAddr(s)) {
			t.Errorf("%s is not public", s)
		}
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.1.1", "172.16.0.1", "192.168.1.1",
		"192.0.0.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fd00::1", "ff02::1", "64:ff9b::1", "::ffff:10.0.0.1",
	} {
		if public(netip.MustParseAddr(s)) {
			t.Errorf("%s is public", s)
		}
	}
	if public(netip.Addr{}) {
		t.Error("the zero Addr is public")
	}
}

func FuzzParsePCP(f *testing.F) {
	for _, s := range []string{mapAnswer4, announceAnswer, onlyPMP, pmpMapOK, mapRequest6, ""} {
		f.Add(unhex(f, s))
	}
	req := pcpRequest{pcpMap, 7200, netip.MustParseAddr("192.168.77.2"), testNonce(), 4500, 9000}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, reason := parsePCP(b)
		if reason != dropNot {
			if a != (pcpAnswer{}) {
				t.Fatalf("dropped (%v) and returned %+v", reason, a)
			}
			return
		}
		if a.answers(req) == dropNot && a.refusal() == nil && !bytes.Contains(b, req.nonce[:]) {
			t.Fatalf("success without our nonce: %+v", a)
		}
	})
}

func FuzzParsePMP(f *testing.F) {
	for _, s := range []string{pmpExternalOK, pmpMapOK, pmpRefused, mapAnswer4, ""} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, reason := parsePMP(b)
		switch {
		case reason != dropNot && a != (pmpAnswer{}):
			t.Fatalf("dropped (%v) and returned %+v", reason, a)
		case reason == dropNot && a.result == pmpSuccess && (a.opcode == pmpExternal) != a.address.IsValid():
			t.Fatalf("opcode %d with address %v", a.opcode, a.address)
		}
	})
}

func FuzzParseSSDP(f *testing.F) {
	f.Add([]byte(ssdpAnswer("http://192.168.1.1:5000/rootDesc.xml")))
	f.Add([]byte(ssdpAnswer("http://192.168.1.1@10.0.0.1/d.xml")))
	f.Add(searches()[1])
	gw := netip.MustParseAddr("192.168.1.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		u, reason := parseSSDP(b, gw)
		if (u == nil) == (reason == dropNot) {
			t.Fatalf("%v, %v", u, reason)
		}
		if u != nil && (u.Hostname() != gw.String() || u.Scheme != "http") {
			t.Fatalf("%v is not on the router", u)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add(testDescription("", "/ctl"))
	f.Add(testDescription("http://10.0.0.1/", "ctl"))
	f.Add(testDescription("", "http://10.0.0.1/ctl"))
	f.Add(testDescription("http://192.168.1.1:81", "//10.0.0.1/ctl"))
	gw := netip.MustParseAddr("192.168.1.1")
	at := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/d.xml"}
	f.Fuzz(func(t *testing.T, s string) {
		root, err := parseDescription(strings.NewReader(s), at)
		if err != nil {
			return
		}
		n := 0
		for _, kind := range new(client).services(root, gw) {
			for _, sv := range kind {
				n++
				if u := sv.SOAPClient.EndpointURL; u.Hostname() != gw.String() || u.Scheme != "http" {
					t.Fatalf("control URL %s is not on the router", &u)
				}
			}
		}
		if n > maxServices {
			t.Fatalf("%d services", n)
		}
	})
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add(unhex(f, announceAnswer))
	f.Add(unhex(f, pmpExternalOK))
	gw := netip.MustParseAddr("192.168.1.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAnnouncement(b, gw)
		if ok != (a.proto == PCP || a.proto == NATPMP) || ok && a.from != gw {
			t.Fatalf("%+v, %v", a, ok)
		}
	})
}

func testDescription(base, control string) string {
	if base != "" {
		base = "<URLBase>" + base + "</URLBase>"
	}
	return `<root xmlns="urn:schemas-upnp-org:device-1-0">` + base + `<device><serviceList><service>` +
		`<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>` + control + `</controlURL></service></serviceList></device></root>`
}
