package outbound

import "testing"

func TestParseMap(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"tcp/8080=10.1.0.2:80", "tcp/127.0.0.1:8080=10.1.0.2:80"},
		{"udp/0.0.0.0:53=web.shop.svc.cluster.local:53", "udp/0.0.0.0:53=web.shop.svc.cluster.local:53"},
		{"tcp/[::1]:8080=[fd00:1::2]:80", "tcp/[::1]:8080=[fd00:1::2]:80"},
		{"tcp/[::ffff:127.0.0.1]:8080=[::ffff:10.1.0.2]:80", "tcp/127.0.0.1:8080=10.1.0.2:80"},
		{"", ""},
		{"tcp/8080", ""},
		{"sctp/8080=10.1.0.2:80", ""},
		{"tcp/0=10.1.0.2:80", ""},
		{"tcp/70000=10.1.0.2:80", ""},
		{"tcp/+80=10.1.0.2:80", ""},
		{"tcp/8080=10.1.0.2", ""},
		{"tcp/8080=10.1.0.2:0", ""},
		{"tcp/8080=:80", ""},
		{"tcp/8080=a b:80", ""},
		{"tcp/8080=[fe80::1%eth0]:80", ""},
		{"tcp/name:8080=10.1.0.2:80", ""},
	} {
		m, err := ParseMap(tt.text)
		if tt.want == "" && err == nil || tt.want != "" && (err != nil || m.String() != tt.want) {
			t.Errorf("%q: %v, %v; want %q", tt.text, m, err, tt.want)
		}
	}
}

func FuzzParseMap(f *testing.F) {
	f.Add("tcp/8080=10.1.0.2:80")
	f.Add("udp/[::1]:53=[fd00:1::2]:53")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMap(s)
		if err != nil {
			return
		}
		if again, err := ParseMap(m.String()); err != nil || again != m {
			t.Errorf("%q: %v becomes %v, %v", s, m, again, err)
		}
	})
}
