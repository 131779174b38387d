package outbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestDialPing(t *testing.T) {
	broken := errors.New("no more of them")
	for _, tt := range []struct {
		host string
		err  error
	}{
		{"10.2.0.9", nil},
		{"::ffff:10.2.0.9", nil},
		{"fd63::1", nil},
		{"10.3.0.1", ErrForbidden},
		{"127.0.0.1", ErrForbidden},
		{"fd63::1%eth0", ErrForbidden},
		{"a.name", ErrNoName},
		{"10.2.0.66", broken},
	} {
		for _, off := range []bool{false, true} {
			cfg := Config{
				Network: nowhere{},
				Reach:   netip.MustParsePrefix("10.2.0.0/16").Contains, Pingable: netip.MustParsePrefix("fd63::/16").Contains,
				Ping: func(_ context.Context, to netip.Addr) (net.Conn, error) {
					if to.Is4In6() {
						t.Errorf("%s is not unmapped", to)
					}
					if tt.err != nil {
						return nil, tt.err
					}
					near, _ := net.Pipe()
					return near, nil
				},
			}
			want := tt.err
			if off {
				cfg.Ping = nil
				if want == nil || errors.Is(want, broken) {
					want = ErrForbidden
				}
			}
			d, err := NewDialer(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.DialPing(t.Context(), tt.host)
			if !errors.Is(err, want) || (c == nil) != (want != nil) {
				t.Errorf("%s, off %v: %v, want %v", tt.host, off, err, want)
			}
			var counted uint64
			for _, n := range d.Counters() {
				counted += n.Value
			}
			if counted != 1 {
				t.Errorf("%s, off %v: counted %d times", tt.host, off, counted)
			}
		}
	}
}

// nowhere is a network that nothing uses.
type nowhere struct{ Network }
