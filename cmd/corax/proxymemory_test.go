package main

import "testing"

func TestStreamLimits(t *testing.T) {
	for _, tt := range []struct {
		name string
		want profileName
		m    memoryLimits
		out  int64
	}{
		{"a container", profileAuto, memoryLimits{cgroup: 256 << 20, machine: 16 << 30}, 64 << 20},
		{"GOMEMLIMIT", profileAuto, memoryLimits{environment: 100 << 20, cgroup: 256 << 20}, 25 << 20},
		{"a small profile on a large machine", profile64, memoryLimits{machine: 16 << 30}, 16 << 20},
		{"nobody says", profileAuto, memoryLimits{}, 256 << 20},
	} {
		if got := streamLimits(chooseProfile(tt.want, tt.m)).Memory; got != tt.out {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.out)
		}
	}
}
