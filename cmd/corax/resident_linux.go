package main

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long after the start an agent needs no more of the program than
// at rest.
const settled = 20 * time.Second

// shrink gives back, once the agent is settled, what only the start needed: free
// heap, and the pages of the program that were touched. Of a binary of 40 MB, most
// of it the Kubernetes libraries, starting touches three quarters and running less
// than half; what is needed again is read again from the page cache. It does so
// again whenever the time again has passed, unless that is zero: what happens once
// an hour should not cost a small device its memory.
func shrink(ctx context.Context, again time.Duration) error {
	t := time.NewTimer(settled)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		giveBack()
		if again == 0 {
			return nil
		}
		t.Reset(again)
	}
}

func giveBack() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // nothing depends on it
	}
	fixed := fixedAddress("/proc/self/exe")
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if start, end, ok := unwritten(line, exe, fixed); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// fixedAddress says whether a program is linked to one address, so that nothing in
// it is relocated (ELF's ET_EXEC; a position-independent one is ET_DYN).
func fixedAddress(exe string) bool {
	const typeOffset, fixedType = 16, 2 // e_type, ET_EXEC
	f, err := os.Open(exe)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var head [typeOffset + 2]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return false
	}
	return string(head[:4]) == "\x7fELF" && binary.NativeEndian.Uint16(head[typeOffset:]) == fixedType
}

// unwritten returns the addresses of a line of /proc/self/maps when it is a part
// of the program that was never written: code, and constants unless they were
// relocated at the start. Only of those a dropped page comes back as it was.
func unwritten(line, exe string, fixed bool) (start, end uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || strings.Contains(f[1], "w") || !strings.HasSuffix(f[1], "p") {
		return 0, 0, false
	}
	if !fixed && !strings.Contains(f[1], "x") {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	if err1 != nil || err2 != nil || to <= from {
		return 0, 0, false
	}
	return uintptr(from), uintptr(to), true
}
