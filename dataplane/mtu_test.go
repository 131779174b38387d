package dataplane

import "testing"

func TestInnerMTU(t *testing.T) {
	for _, tc := range []struct {
		name string
		link int
		want int
	}{
		{"unknown", 0, 1408},
		{"minimum", 1280, 1408},
		{"ethernet", 1500, 1408},
		{"just above ethernet", 1501, 1408},
		{"one step above", 1512, 1424},
		{"jumbo", 9000, 8912},
		{"loopback", 65536, 8912},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := InnerMTU(tc.link)
			if got != tc.want {
				t.Errorf("InnerMTU(%d) = %d, want %d", tc.link, got, tc.want)
			}
			if got%16 != 0 {
				t.Errorf("InnerMTU(%d) = %d is no multiple of 16: WireGuard would pad beyond the link", tc.link, got)
			}
			if tc.link > 1500 && got+OverheadWG6+OverheadRelay > tc.link && got != DefaultMTU {
				t.Errorf("InnerMTU(%d) = %d does not fit", tc.link, got)
			}
		})
	}
}

func TestVXLANMTU(t *testing.T) {
	if got := VXLANMTU(1500, false); got != 1450 {
		t.Errorf("VXLANMTU(1500, v4) = %d, want 1450", got)
	}
	if got := VXLANMTU(1500, true); got != 1430 {
		t.Errorf("VXLANMTU(1500, v6) = %d, want 1430", got)
	}
}
