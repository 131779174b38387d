package main

import "testing"

func TestWidth(t *testing.T) {
	for _, tc := range []struct{ cpus, want int }{
		{1, 1}, {2, 1}, {3, 1}, {4, 2}, {6, 3}, {8, 4}, {16, 4}, {128, 4},
	} {
		if got := width(tc.cpus); got != tc.want {
			t.Errorf("width(%d) = %d, want %d", tc.cpus, got, tc.want)
		}
	}
}
