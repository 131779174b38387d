package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUnwritten(t *testing.T) {
	for _, tt := range []struct {
		name, line    string
		fixed, moving bool // what is wanted of a program at one address, and of another
	}{
		{"code", "00400000-01f3e000 r-xp 00000000 fe:00 1234 /corax\n", true, true},
		{"constants", "01f3e000-03a00000 r--p 01b3e000 fe:00 1234 /corax\n", true, false},
		{"data", "03a00000-03b00000 rw-p 035fe000 fe:00 1234 /corax\n", false, false},
		{"shared", "00400000-01f3e000 r--s 00000000 fe:00 1234 /corax\n", false, false},
		{"another file", "7f0000000000-7f0000001000 r--p 00000000 fe:00 9 /lib/x\n", false, false},
		{"heap", "c000000000-c004000000 rw-p 00000000 00:00 0\n", false, false},
		{"backwards", "02-01 r-xp 00000000 fe:00 1234 /corax\n", false, false},
		{"empty", "", false, false},
	} {
		for fixed, want := range map[bool]bool{true: tt.fixed, false: tt.moving} {
			start, end, ok := unwritten(tt.line, "/corax", fixed)
			if ok != want || ok && end <= start {
				t.Errorf("%s, fixed %v: %x-%x, %v, want %v", tt.name, fixed, start, end, ok, want)
			}
		}
	}
}

// Constants of a position-independent program hold pointers, which the loader wrote:
// dropping them ended such an agent 20 seconds after its start.
func TestFixedAddress(t *testing.T) {
	elf := func(kind byte) string {
		return "\x7fELF\x02\x01\x01" + string(make([]byte, 9)) + string([]byte{kind, 0})
	}
	for _, tt := range []struct {
		name, content string
		want          bool
	}{
		{"executable", elf(2), true},
		{"position-independent", elf(3), false},
		{"cut", elf(2)[:17], false},
		{"script", "#!/bin/sh\nexec corax \x02\x00", false},
		{"empty", "", false},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fixedAddress(path); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if fixedAddress(filepath.Join(t.TempDir(), "missing")) {
		t.Error("a missing program has a fixed address")
	}
}
