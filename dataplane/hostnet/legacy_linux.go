package hostnet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tables of legacy iptables live outside nftables. They are read with
// getsockopt, as iptables does (linux/netfilter/x_tables.h, ip_tables.h,
// ip6_tables.h), and never written: its interface replaces whole tables.

// xtLayout is what differs between struct ipt_entry and ip6t_entry, in bytes.
type xtLayout struct {
	names    string // file under /proc/net that lists the loaded tables
	command  string
	domain   int
	level    int
	iif, oif int // offsets of the link names in an entry
	target   int // offset of target_offset; next_offset follows
}

// head is the least that an entry has before its target, as far as we read.
func (l xtLayout) head() int { return l.target + 4 }

func xtLayouts() [2]xtLayout {
	return [2]xtLayout{
		{"ip_tables_names", "iptables", unix.AF_INET, unix.SOL_IP, 16, 32, 88},
		{"ip6_tables_names", "ip6tables", unix.AF_INET6, unix.SOL_IPV6, 64, 80, 140},
	}
}

const (
	xtGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	xtGetEntries = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES
	xtNameLen    = 32 // XT_TABLE_MAXNAMELEN
	xtHooks      = 5
	xtForward    = 2  // NF_INET_FORWARD
	xtTargetLen  = 32 // struct xt_entry_target
	xtDrop       = -1 // -NF_DROP - 1
	xtAccept     = -2 // -NF_ACCEPT - 1
	xtInfoLen    = 84 // struct ipt_getinfo
	xtMaxSize    = 8 << 20
)

// legacyProblems reports a legacy FORWARD chain that drops by policy and does
// not accept the device's packets.
func legacyProblems(device string) []Problem {
	var out []Problem
	for _, l := range xtLayouts() {
		names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
		// Asking for a table that is not loaded would load it.
		if err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		hook, policy, entries, err := l.read("filter")
		if err != nil {
			continue
		}
		if l.blocks(entries, hook, policy, device) {
			out = append(out, Problem{
				Name: "forward_drop",
				What: fmt.Sprintf("the FORWARD chain of %s-legacy drops by policy: packets between pods and %s do not pass", l.command, device),
				Mend: fmt.Sprintf("%[1]s-legacy -I FORWARD -i %[2]s -j ACCEPT; %[1]s-legacy -I FORWARD -o %[2]s -j ACCEPT", l.command, device),
			})
		}
	}
	return out
}

// read returns the entries of a table and where in them the FORWARD chain
// starts and has its policy.
func (l xtLayout) read(table string) (hook, policy int, entries []byte, err error) {
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, nil, err
	}
	defer unix.Close(fd)
	info := make([]byte, xtInfoLen)
	copy(info, table)
	if err := getsockopt(fd, l.level, xtGetInfo, info); err != nil {
		return 0, 0, nil, err
	}
	u32 := func(i int) int { return int(binary.NativeEndian.Uint32(info[xtNameLen+4*i:])) }
	valid, size := u32(0), u32(2+2*xtHooks)
	if valid&(1<<xtForward) == 0 || size > xtMaxSize {
		return 0, 0, nil, unix.ENOENT
	}
	// struct ipt_get_entries: name, size, and the entries, aligned as their
	// 64-bit counters are in C.
	head := 40
	if runtime.GOARCH == "386" {
		head = 36
	}
	buf := make([]byte, head+size)
	copy(buf, table)
	binary.NativeEndian.PutUint32(buf[xtNameLen:], uint32(size))
	if err := getsockopt(fd, l.level, xtGetEntries, buf); err != nil {
		return 0, 0, nil, err
	}
	return u32(1 + xtForward), u32(1 + xtHooks + xtForward), buf[head:], nil
}

func getsockopt(fd, level, name int, buf []byte) error {
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// blocks reports whether the chain between hook and policy drops by policy
// without accepting, anywhere, what comes from and goes to the device.
func (l xtLayout) blocks(entries []byte, hook, policy int, device string) bool {
	if v, ok := l.verdict(entries, policy); !ok || v != xtDrop {
		return false
	}
	var in, out bool
	for at := hook; at >= 0 && at < policy && at+l.head() <= len(entries); {
		e := entries[at:]
		if v, ok := l.verdict(entries, at); ok && v == xtAccept {
			in = in || linkName(e[l.iif:]) == device
			out = out || linkName(e[l.oif:]) == device
		}
		next := int(binary.NativeEndian.Uint16(e[l.target+2:]))
		if next < l.head() {
			break
		}
		at += next
	}
	return !in || !out
}

// verdict returns the verdict of the entry at offset at when it has the
// standard target.
func (l xtLayout) verdict(entries []byte, at int) (verdict int32, ok bool) {
	if at < 0 || at+l.head() > len(entries) {
		return 0, false
	}
	t := at + int(binary.NativeEndian.Uint16(entries[at+l.target:]))
	if t+xtTargetLen+4 > len(entries) || entries[t+2] != 0 { // the standard target has no name
		return 0, false
	}
	return int32(binary.NativeEndian.Uint32(entries[t+xtTargetLen:])), true
}

func linkName(b []byte) string {
	b = b[:unix.IFNAMSIZ]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
