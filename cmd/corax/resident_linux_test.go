package main

import "testing"

func TestUnwritable(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       bool
	}{
		{"code", "00400000-01f3e000 r-xp 00000000 fe:00 1234 /corax\n", true},
		{"constants", "01f3e000-03a00000 r--p 01b3e000 fe:00 1234 /corax\n", true},
		{"data", "03a00000-03b00000 rw-p 035fe000 fe:00 1234 /corax\n", false},
		{"shared", "00400000-01f3e000 r--s 00000000 fe:00 1234 /corax\n", false},
		{"another file", "7f0000000000-7f0000001000 r--p 00000000 fe:00 9 /lib/x\n", false},
		{"heap", "c000000000-c004000000 rw-p 00000000 00:00 0\n", false},
		{"backwards", "02-01 r-xp 00000000 fe:00 1234 /corax\n", false},
		{"empty", "", false},
	} {
		start, end, ok := unwritable(tt.line, "/corax")
		if ok != tt.want || ok && end <= start {
			t.Errorf("%s: %x-%x, %v, want %v", tt.name, start, end, ok, tt.want)
		}
	}
}
