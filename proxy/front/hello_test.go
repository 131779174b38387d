package front

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder takes what is written and never answers.
type recorder struct {
	net.Conn
	bytes.Buffer
}

func (r *recorder) Read([]byte) (int, error)       { return 0, io.EOF }
func (r *recorder) Write(b []byte) (int, error)    { return r.Buffer.Write(b) }
func (*recorder) Close() error                     { return nil }
func (*recorder) SetDeadline(time.Time) error      { return nil }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }
func (*recorder) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// helloFor returns what crypto/tls sends first.
func helloFor(c *tls.Config) []byte {
	var r recorder
	_ = tls.Client(&r, c).Handshake()
	return r.Bytes()
}

// fragmented cuts the handshake message into records of that size.
func fragmented(hello []byte, size int) []byte {
	var out []byte
	for part := range slices.Chunk(hello[5:], size) {
		out = append(out, 22, 3, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

// helloWith makes a ClientHello with these extensions.
func helloWith(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 19, 1, 1, 0)
	all := slices.Concat(extensions...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
	body = append(body, all...)
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0, byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	body := append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)
	return append([]byte{0, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

func TestParseHello(t *testing.T) {
	plain := helloFor(&tls.Config{ServerName: "Edge-1.example.org"})
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
		err   error
	}{
		{"of crypto/tls", plain, "edge-1.example.org", nil},
		{"TLS 1.2", helloFor(&tls.Config{ServerName: "a", MaxVersion: tls.VersionTLS12}), "a", nil},
		{"in records of 100 bytes", fragmented(plain, 100), "edge-1.example.org", nil},
		{"in records of 1 byte", fragmented(plain, 1), "edge-1.example.org", nil},
		{"with more behind it", append(slices.Clone(plain), 23, 3, 3), "edge-1.example.org", nil},
		{"no name", helloFor(&tls.Config{InsecureSkipVerify: true}), "", nil},
		{"an address is no name", helloFor(&tls.Config{ServerName: "10.0.0.1", InsecureSkipVerify: true}), "", nil},
		{"no extensions", []byte{22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3, 32: 0, 43: 0, 0, 2, 19, 1, 1, 0}, "", nil},
		{"nothing", nil, "", errHelloMore},
		{"a byte less", plain[:len(plain)-1], "", errHelloMore},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), "", errHelloPlain},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, "", errHelloPlain},
		{"an alert", []byte{21, 3, 1, 0, 2, 1, 0}, "", errHelloPlain},
		{"record of no bytes", []byte{22, 3, 1, 0, 0}, "", errHelloBad},
		{"record too long", []byte{22, 3, 1, 0xff, 0xff}, "", errHelloBad},
		{"ServerHello", []byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, "", errHelloBad},
		{"message too long", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, "", errHelloLong},
		{"other record between", append(slices.Clone(fragmented(plain, 100)[:105]), 23, 3, 1, 0, 1, 0), "", errHelloBad},
		{"two names", helloWith(sni("a", "b")), "", errHelloBad},
		{"two extensions of names", helloWith(sni("a"), sni("b")), "", errHelloBad},
		{"empty name", helloWith(sni("")), "", errHelloBad},
		{"name with a zero byte", helloWith(sni("a\x00b")), "", errHelloBad},
		{"name with a line feed", helloWith(sni("a\nb")), "", errHelloBad},
		{"name too long", helloWith(sni(strings.Repeat("a", 254))), "", errHelloBad},
		{"extension cut off", helloWith([]byte{0, 0, 0, 9}), "", errHelloBad},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := parseHello(c.bytes)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

// TestReadHelloStops shows that no more than 16 KiB are read, however long a hello
// is made.
func TestReadHelloStops(t *testing.T) {
	long := helloFor(&tls.Config{ServerName: "a", NextProtos: slices.Repeat([]string{strings.Repeat("x", 200)}, 100)})
	r := &counting{r: bytes.NewReader(fragmented(long, 1))}
	_, _, err := readHello(r)
	if !errors.Is(err, errHelloLong) || r.n > maxHello {
		t.Errorf("%d bytes, %v", r.n, err)
	}
}

// TestHelloNeed reads hellos byte by byte: to look only when there are as many bytes
// as were needed finds the same, at the same byte, and looks a few times.
func TestHelloNeed(t *testing.T) {
	plain := helloFor(&tls.Config{ServerName: "edge1.example.org"})
	for _, c := range []struct {
		name  string
		bytes []byte
		looks int
	}{
		{"in one record", plain, 6},
		{"in records of 100 bytes", fragmented(plain, 100), 6 + 4*len(plain)/100},
		{"in records of one byte", fragmented(plain, 1), 4 * len(plain)},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), 1},
		{"half of TLS", []byte{22, 2, 0, 0, 0, 0}, 2},
		{"another message", []byte{22, 3, 1, 0, 9, 2, 0, 0, 0, 0}, 4},
		{"two names", helloWith(sni("a", "b")), 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			need, looks, found := 1, 0, 0
			for n := 1; n <= len(c.bytes) && found == 0; n++ {
				_, more, err := parseHello(c.bytes[:n])
				known := !errors.Is(err, errHelloMore)
				if n < need {
					if known {
						t.Fatalf("it is known after %d bytes, %d are said to be needed", n, need)
					}
					continue
				}
				looks++
				need = more
				if known {
					found = n
				}
			}
			if found == 0 || looks > c.looks {
				t.Errorf("found after %d bytes by %d looks, want %d", found, looks, c.looks)
			}
		})
	}
}

type counting struct {
	net.Conn
	r io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// theirName is crypto/tls as the oracle.
func theirName(records []byte) (name string, ok bool) {
	c := &reading{r: bytes.NewReader(records)}
	_ = tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, errors.New("that is all")
	}}).Handshake()
	return name, ok
}

type reading struct {
	recorder
	r io.Reader
}

func (c *reading) Read(b []byte) (int, error) { return c.r.Read(b) }

func FuzzClientHello(f *testing.F) {
	plain := helloFor(&tls.Config{ServerName: "edge1.example.org"})
	for _, seed := range [][]byte{
		plain, fragmented(plain, 7), helloWith(sni("a", "b")), helloWith(sni("a"), sni("b")), helloWith(), helloWith(sni("a.")),
		helloFor(&tls.Config{InsecureSkipVerify: true}), []byte("GET / HTTP/1.1\r\n"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name, need, err := parseHello(b)
		if err != nil {
			if (need > len(b)) != errors.Is(err, errHelloMore) {
				t.Errorf("%d bytes are needed after %d, with %v", need, len(b), err)
			}
			if name != "" {
				t.Errorf("name %q with %v", name, err)
			}
			if errors.Is(err, errHelloMore) && len(b) >= maxHello {
				t.Errorf("more is wanted after %d bytes", len(b))
			}
			return
		}
		// What more bytes follow cannot change it.
		if again, _, err := parseHello(append(slices.Clone(b), 0)); again != name || err != nil {
			t.Errorf("%q, %v with a byte more, %q before", again, err, name)
		}
		// A node must not read another name than we did.
		if theirs, ok := theirName(b); ok && !strings.EqualFold(theirs, name) {
			t.Errorf("we read %q, crypto/tls %q", name, theirs)
		}
	})
}
