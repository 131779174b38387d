package front

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	const host = "Host: edge1:9100\r\n"
	for _, c := range []struct {
		name, head, want string // want: part of the error; empty: it is taken
	}{
		{"plain", "GET /metrics HTTP/1.1\r\n" + host, ""},
		{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n", ""},
		{"CONNECT of the API server", "CONNECT edge1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n", ""},
		{"with a length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n", ""},
		{"chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n", ""},
		{"tab in a value", "GET / HTTP/1.1\r\n" + host + "A:\tb\r\n", ""},
		{"no Host", "GET / HTTP/1.1\r\n", "0 Host fields"},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + host, "2 Host fields"},
		{"length and chunked", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "both"},
		{"chunked and length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "both"},
		{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length"},
		{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n", "Content-Length"},
		{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n", "Content-Length"},
		{"negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n", "Content-Length"},
		{"hex length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n", "Content-Length"},
		{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n", "Content-Length"},
		{"gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding"},
		{"chunked twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding"},
		{"vertical tab chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \vchunked\r\n", "forbidden bytes"},
		{"identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n", "Transfer-Encoding"},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", "in HTTP/1.0"},
		{"space before the colon", "POST / HTTP/1.1\r\n" + host + "Content-Length : 5\r\n", "no field"},
		{"space before the name", "POST / HTTP/1.1\r\n" + host + " Content-Length: 5\r\n", "no field"},
		{"continued line", "GET / HTTP/1.1\r\n" + host + "A: b\r\n\tc: d\r\n", "no field"},
		{"bare line feed", "GET / HTTP/1.1\r\n" + host + "A: b\nContent-Length: 5\r\n", "forbidden bytes"},
		{"bare carriage return", "GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n", "forbidden bytes"},
		{"zero byte", "GET / HTTP/1.1\r\n" + host + "A: b\x00\r\n", "forbidden bytes"},
		{"empty name", "GET / HTTP/1.1\r\n" + host + ": x\r\n", "no field"},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host, "no request line"},
		{"tab for a space", "GET\t/ HTTP/1.1\r\n" + host, "no request line"},
		{"space in the target", "GET /a b HTTP/1.1\r\n" + host, "version"},
		{"line feed in the target", "GET /a\nb HTTP/1.1\r\n" + host, "forbidden bytes"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n", "version"},
		{"HTTP/0.9", "GET /\r\n", "no request line"},
		{"lower case version", "GET / http/1.1\r\n" + host, "version"},
		{"nothing", "\r\n", "no request line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseHead([]byte(c.head + "\r\n"))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzHead has net/http as its oracle: it must understand what we let through, as we
// did.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", "CONNECT edge1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET http://edge1:9100/ HTTP/1.1\r\nHost: b\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "CONNECT [fd00::1]:10250 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if err != nil {
			return
		}
		if bytes.Count(b, []byte("\r\n\r\n")) != 1 {
			t.Errorf("two heads in %q", b)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return // stricter than we are, which is as good
		}
		chunked := len(r.TransferEncoding) > 0
		if r.Method != h.method || r.RequestURI != h.target || h.body != (chunked || r.ContentLength > 0) {
			t.Errorf("%+v, net/http: %s %s, chunked %v, length %d", h, r.Method, r.RequestURI, chunked, r.ContentLength)
		}
	})
}

func TestParseAuthority(t *testing.T) {
	for _, c := range []struct {
		s, host string
		port    uint16
		ok      bool
	}{
		{"edge1:10250", "edge1", 10250, true},
		{"edge1", "edge1", 0, true},
		{"Edge_1.a-b.:1", "Edge_1.a-b.", 1, true},
		{"10.0.0.5:10250", "10.0.0.5", 10250, true},
		{"[fd00::5]:10250", "fd00::5", 10250, true},
		{"[fd00::5]", "fd00::5", 0, true},
		{"", "", 0, false},
		{":10250", "", 0, false},
		{"edge1:", "", 0, false},
		{"edge1:0", "", 0, false},
		{"edge1:010", "", 0, false},
		{"edge1:+1", "", 0, false},
		{"edge1:65536", "", 0, false},
		{"edge1:http", "", 0, false},
		{"edge1:1:2", "", 0, false},
		{"fd00::5:10250", "", 0, false},
		{"[fe80::1%eth0]:10250", "", 0, false},
		{"[fe80::1%25eth0]:10250", "", 0, false},
		{"[edge1]:10250", "", 0, false},
		{"[fd00::5]10250", "", 0, false},
		{"[fd00::5", "", 0, false},
		{"user@edge1:10250", "", 0, false},
		{"user:pass@edge1:10250", "", 0, false},
		{"edge1/x:10250", "", 0, false},
		{"edge1%2f:10250", "", 0, false},
		{"edge1#a:1", "", 0, false},
		{"edge1?a:1", "", 0, false},
		{"edge1\\@evil:1", "", 0, false},
		{"edge1 :1", "", 0, false},
		{"ｅdge1:1", "", 0, false},
		{strings.Repeat("a", 254) + ":1", "", 0, false},
	} {
		host, port, err := parseAuthority(c.s)
		if host != c.host || port != c.port || (err == nil) != c.ok {
			t.Errorf("%q: %q, %d, %v", c.s, host, port, err)
		}
	}
}

func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"edge1:10250", "[fd00::5]:10250", "user@edge1:1", "[fe80::1%eth0]:1", "10.0.0.5:80", "a.:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := parseAuthority(s)
		if err != nil {
			if host != "" || port != 0 {
				t.Errorf("%q, %d with %v", host, port, err)
			}
			return
		}
		if host == "" || strings.ContainsAny(host, "@/%\\#? \r\n\x00[]") || !strings.Contains(s, host) {
			t.Errorf("host %q of %q", host, s)
		}
	})
}
