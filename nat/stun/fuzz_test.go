package stun

import (
	"bytes"
	"net/netip"
	"testing"

	pion "github.com/pion/stun/v3"
)

// FuzzParse checks that nothing past the end is read, that pion reads the same,
// and that what is a probe or an answer is the same after it was made again.
func FuzzParse(f *testing.F) {
	f.Add(probe(f, 0))
	f.Add(probe(f, 128))
	f.Add(AppendAnswer(nil, testTx, addr4, testKey()))
	f.Add(AppendAnswer(nil, testTx, addr6, testKey()))
	f.Add(AppendRequest(nil, testTx, RequestOptions{ChangeIP: true, ResponsePort: 9, Padding: 8}))
	f.Add(appendHeader(nil, bindingError, testTx))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)[:len(in):len(in)]
		m, err := Parse(b)
		if !bytes.Equal(b, in) {
			t.Fatal("the input was changed")
		}
		var p pion.Message
		if err != nil {
			return
		}
		if err := pion.Decode(b, &p); err != nil {
			t.Fatalf("pion: %v", err)
		}
		if p.TransactionID != m.Tx || m.Size != len(b) {
			t.Fatalf("transaction ID or size: %+v", m)
		}
		if m.fingerprint && pion.Fingerprint.Check(&p) != nil {
			t.Fatal("pion does not accept the fingerprint")
		}
		m.Verify(testKey())
		checkMapped(t, m, &p)
		again(t, m)
	})
}

func checkMapped(t *testing.T, m Message, p *pion.Message) {
	var x pion.XORMappedAddress
	if (m.Kind != KindAnswer && m.Kind != KindResponse) || x.GetFrom(p) != nil {
		return
	}
	ip, _ := netip.AddrFromSlice(x.IP)
	if got := netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)); got != m.Mapped {
		t.Fatalf("mapped %v, pion says %v", m.Mapped, got)
	}
}

func again(t *testing.T, m Message) {
	var b []byte
	switch m.Kind {
	case KindProbe:
		var err error
		if b, err = AppendProbe(nil, Probe{Tx: m.Tx, To: m.To, From: m.From, Size: m.Size}, testKey()); err != nil {
			t.Fatal(err)
		}
	case KindAnswer:
		b = AppendAnswer(nil, m.Tx, m.Mapped, testKey())
	default:
		return
	}
	n, err := Parse(b)
	if err != nil || n.Kind != m.Kind || n.Tx != m.Tx || n.To != m.To || n.From != m.From || n.Mapped != m.Mapped {
		t.Fatalf("made again: %+v, %v, want %+v", n, err, m)
	}
	if m.Kind == KindProbe && n.Size != m.Size {
		t.Fatalf("made again: %d bytes, want %d", n.Size, m.Size)
	}
}

// FuzzAnswer checks the bounds on what anybody can make the server send.
func FuzzAnswer(f *testing.F) {
	f.Add(AppendRequest(nil, testTx, RequestOptions{}), true)
	f.Add(AppendRequest(nil, testTx, RequestOptions{Padding: 4}), true)
	f.Add(appendFingerprint(AppendRequest(nil, testTx, RequestOptions{}), 0), false)
	f.Add(probe(f, 0), false)
	f.Fuzz(func(t *testing.T, req []byte, v6 bool) {
		from := addr4
		if v6 {
			from = addr6
		}
		var s Server
		out, ok := s.Answer(nil, req, from, testStart)
		if ok != (len(out) > 0) {
			t.Fatalf("ok %v with %d bytes", ok, len(out))
		}
		if !ok {
			return
		}
		in, err := Parse(req)
		if err != nil || in.Kind != KindRequest || in.Changes {
			t.Fatalf("answered %+v, %v", in, err)
		}
		m, err := Parse(out)
		switch {
		case err != nil || m.Tx != in.Tx:
			t.Fatalf("answer %+v, %v", m, err)
		case m.Kind == KindResponse && m.Mapped != from:
			t.Fatalf("mapped %v, want %v", m.Mapped, from)
		case len(out) > 44, (in.padded || m.Kind != KindResponse) && len(out) > len(req):
			t.Fatalf("%d bytes for %d", len(out), len(req))
		}
	})
}
