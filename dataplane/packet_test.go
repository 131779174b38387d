package dataplane

import "testing"

func TestBatch(t *testing.T) {
	for _, tt := range []struct{ n, size, want int }{
		{128, 1360, 2 * 46},
		{128, 1382, 2 * 45},
		{128, 9000, 18 * 7},
		{128, 60000, 128},
		{128, 65450, 128}, // fills none
		{128, 1 << 20, 128},
		{128, 1000, 2 * 61},
		{128, 40, 2 * 64}, // as many as the kernel cuts
		{128, 0, 2 * 64},
		{100, 40, 64},
		{64, 1382, 45},
		{45, 1382, 45},
		{44, 1382, 44},
		{16, 1382, 16},
		{1, 1382, 1},
	} {
		if got := Batch(tt.n, tt.size); got != tt.want {
			t.Errorf("Batch(%d, %d) = %d, want %d", tt.n, tt.size, got, tt.want)
		}
	}
}
