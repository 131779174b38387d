package hostnet

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xtEntry builds an entry with the standard target.
func xtEntry(l xtLayout, iif, oif string, verdict int32) []byte {
	head := (l.head() + 4 + 16 + 7) &^ 7 // comefrom, counters
	b := make([]byte, head+xtTargetLen+8)
	copy(b[l.iif:], iif)
	copy(b[l.oif:], oif)
	binary.NativeEndian.PutUint16(b[l.target:], uint16(head))
	binary.NativeEndian.PutUint16(b[l.target+2:], uint16(len(b)))
	binary.NativeEndian.PutUint16(b[head:], xtTargetLen+8)
	binary.NativeEndian.PutUint32(b[head+xtTargetLen:], uint32(verdict))
	return b
}

func TestLegacyBlocks(t *testing.T) {
	for _, l := range xtLayouts() {
		var (
			in     = xtEntry(l, "corax0", "", xtAccept)
			out    = xtEntry(l, "", "corax0", xtAccept)
			other  = xtEntry(l, "docker0", "", xtAccept)
			drop   = xtEntry(l, "", "", xtDrop)
			policy = xtEntry(l, "", "", xtAccept)
		)
		tests := []struct {
			name  string
			rules [][]byte // of the FORWARD chain
			last  []byte   // its policy
			want  bool
		}{
			{"policy accept", nil, policy, false},
			{"policy drop", nil, drop, true},
			{"policy drop, others accepted", [][]byte{other}, drop, true},
			{"policy drop, one direction accepted", [][]byte{other, in}, drop, true},
			{"policy drop, both accepted", [][]byte{out, other, in}, drop, false},
		}
		for _, tt := range tests {
			t.Run(l.command+" "+tt.name, func(t *testing.T) {
				before := append(xtEntry(l, "corax0", "corax0", xtAccept), drop...) // the INPUT chain
				entries := append([]byte{}, before...)
				for _, r := range tt.rules {
					entries = append(entries, r...)
				}
				end := len(entries)
				entries = append(append(entries, tt.last...), policy...)
				if got := l.blocks(entries, len(before), end, "corax0"); got != tt.want {
					t.Errorf("blocks = %t, want %t", got, tt.want)
				}
			})
		}
	}
}

func FuzzLegacyBlocks(f *testing.F) {
	l := xtLayouts()[0]
	f.Add(append(xtEntry(l, "corax0", "", xtAccept), xtEntry(l, "", "", xtDrop)...), 0, 152)
	f.Add([]byte{}, -1, 1<<30)
	f.Fuzz(func(t *testing.T, entries []byte, hook, policy int) {
		for _, l := range xtLayouts() {
			l.blocks(entries, hook, policy, "corax0")
		}
	})
}

// The real kernel: a legacy filter table whose FORWARD policy is drop.
func TestLegacyKernel(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	if got := legacyProblems("corax0"); len(got) != 0 {
		t.Fatalf("problems without a legacy table: %v", got)
	}
	for i, l := range xtLayouts() {
		// Asking loads the table, with policy accept.
		if _, _, _, err := l.read("filter"); err != nil {
			skip(t, "kernel without legacy "+l.command+": "+err.Error())
		}
		if got := legacyProblems("corax0"); len(got) != i {
			t.Fatalf("policy accept of %s: problems %v", l.command, got)
		}
		if err := dropForward(l); err != nil {
			t.Fatalf("set policy of %s: %v", l.command, err)
		}
		got := legacyProblems("corax0")
		if len(got) != i+1 || !strings.Contains(got[i].Mend, l.command+"-legacy -I FORWARD -i corax0 -j ACCEPT") {
			t.Fatalf("policy drop of %s: problems %v", l.command, got)
		}
	}
	apply(t, newHost(t, Config{}), testState(), "forward_drop", "forward_drop")
}

// dropForward does iptables -P FORWARD DROP.
func dropForward(l xtLayout) error {
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := make([]byte, xtInfoLen)
	copy(info, "filter")
	if err := getsockopt(fd, l.level, xtGetInfo, info); err != nil {
		return err
	}
	_, policy, entries, err := l.read("filter")
	if err != nil {
		return err
	}
	target := policy + int(binary.NativeEndian.Uint16(entries[policy+l.target:]))
	verdict := int32(xtDrop)
	binary.NativeEndian.PutUint32(entries[target+xtTargetLen:], uint32(verdict))

	// struct ipt_replace of a 64-bit kernel: name, valid_hooks, num_entries,
	// size, hook_entry, underflow, num_counters, counters.
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return errors.New("only for 64 bits")
	}
	field := func(i int) []byte { return info[xtNameLen+4*i:][:4] }
	num := binary.NativeEndian.Uint32(field(11))
	counters := make([]byte, 16*num)
	r := append([]byte{}, info[:xtNameLen]...)
	r = append(r, field(0)...)
	r = append(r, field(11)...)
	r = append(r, field(12)...)
	r = append(r, info[xtNameLen+4:xtNameLen+44]...)
	r = append(r, field(11)...)
	for len(r)%8 != 0 {
		r = append(r, 0)
	}
	r = binary.NativeEndian.AppendUint64(r, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(counters)))))
	r = append(r, entries...)
	err = unix.SetsockoptString(fd, l.level, xtGetInfo, string(r)) // IPT_SO_SET_REPLACE has the same number
	runtime.KeepAlive(counters)
	return err
}
