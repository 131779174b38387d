package main

import (
	"testing"
	"testing/fstest"
)

// A process of version 2 sees its group and those above, one of version 1 each
// controller's, one in a container its own group at the mount.
const (
	mount2  = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	mount1  = "34 31 0:31 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
	mount1x = "34 31 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	hybrid  = "40 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)

func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestFindMemory(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  memoryLimits
	}{
		{"nothing to be read", nil, memoryLimits{}},
		{"a machine", map[string]string{"proc/meminfo": "MemTotal:       24682232 kB\nMemFree: 1 kB\n"}, memoryLimits{machine: 24682232 << 10}},
		{"version 2, its own group", map[string]string{
			"proc/self/mountinfo": mount2, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "33554432\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, memoryLimits{cgroup: 32 << 20}},
		{"version 2, a group above is stricter", map[string]string{
			"proc/self/mountinfo": mount2, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "67108864\n", "sys/fs/cgroup/a/memory.max": "33554432\n",
		}, memoryLimits{cgroup: 32 << 20}},
		{"version 2, no limit", map[string]string{
			"proc/self/mountinfo": mount2, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, memoryLimits{}},
		{"version 2, a container with a cgroup namespace", map[string]string{
			"proc/self/mountinfo": mount2, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "67108864\n",
		}, memoryLimits{cgroup: 64 << 20}},
		{"version 2, a group outside of our namespace", map[string]string{
			"proc/self/mountinfo": mount2, "proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/memory.max": "67108864\n", "sys/memory.max": "1\n",
		}, memoryLimits{cgroup: 64 << 20}},
		{"version 1", map[string]string{
			"proc/self/mountinfo": mount1, "proc/self/cgroup": "4:memory:/a/b\n1:cpu:/\n",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "33554432\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
		}, memoryLimits{cgroup: 32 << 20}},
		{"version 1, a container", map[string]string{
			"proc/self/mountinfo": mount1x, "proc/self/cgroup": "4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "33554432\n",
		}, memoryLimits{cgroup: 32 << 20}},
		{"version 1, another group with the same beginning", map[string]string{
			"proc/self/mountinfo": mount1x, "proc/self/cgroup": "4:memory:/docker/abcd\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "33554432\n", "sys/fs/cgroup/memoryd/memory.limit_in_bytes": "1",
		}, memoryLimits{cgroup: 32 << 20}},
		{"both, memory with version 1", map[string]string{
			"proc/self/mountinfo": mount1 + hybrid, "proc/self/cgroup": "5:cpu,memory:/a\n0::/x\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "33554432\n",
		}, memoryLimits{cgroup: 32 << 20}},
		{"nonsense", map[string]string{
			"proc/self/mountinfo": "34\n / - cgroup2\n" + mount2, "proc/self/cgroup": "x\n0::a\n0::/a\n", "proc/meminfo": "MemTotal: -1 kB\nMemTotal: 9223372036854775807 kB\n",
			"sys/fs/cgroup/a/memory.max": "-5\n",
		}, memoryLimits{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := findMemory(tree(tc.files), 0); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func FuzzFindMemory(f *testing.F) {
	f.Add(mount2, "0::/a/b\n", "33554432\n", "MemTotal: 5 kB\n")
	f.Add(mount1x+hybrid, "4:memory:/docker/abc\n0::/../..\n", "max", "")
	f.Fuzz(func(t *testing.T, mounts, groups, limit, meminfo string) {
		m := findMemory(tree(map[string]string{
			"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, "proc/meminfo": meminfo,
			"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
		}), 0)
		if m.cgroup < 0 || m.machine < 0 || m.cgroup >= unlimited || m.machine >= unlimited {
			t.Errorf("%+v", m)
		}
		if p := chooseProfile(profileAuto, m); p.limit != 0 && p.heap <= 0 || p.name == profileAuto {
			t.Errorf("%+v gives %+v", m, p)
		}
	})
}

func TestChooseProfile(t *testing.T) {
	const mb, gb = int64(mebibyte), int64(1 << 30)
	for _, tc := range []struct {
		name        string
		want        profileName
		m           memoryLimits
		profile     profileName
		limit, heap int64
	}{
		{"nothing known", profileAuto, memoryLimits{}, profileFull, 0, 0},
		{"a large machine", profileAuto, memoryLimits{machine: 24 * gb}, profileFull, 6 * gb, 6*gb - 6*gb/8},
		{"a board of 1 GB", profileAuto, memoryLimits{machine: gb}, profile256, 256 * mb, 224 * mb},
		{"a router of 128 MB", profileAuto, memoryLimits{machine: 128 * mb}, profile32, 32 * mb, 24 * mb},
		{"a group of 32 MB", profileAuto, memoryLimits{machine: 24 * gb, cgroup: 32 * mb}, profile32, 32 * mb, 24 * mb},
		{"a group of 63 MB", profileAuto, memoryLimits{cgroup: 63 * mb}, profile32, 63 * mb, 55 * mb},
		{"a group of 64 MB", profileAuto, memoryLimits{cgroup: 64 * mb}, profile64, 64 * mb, 56 * mb},
		{"a group of 256 MB", profileAuto, memoryLimits{cgroup: 256 * mb}, profile256, 256 * mb, 224 * mb},
		{"a group of 512 MB", profileAuto, memoryLimits{cgroup: 512 * mb}, profileFull, 512 * mb, 448 * mb},
		{"a group that is too small", profileAuto, memoryLimits{cgroup: 12 * mb}, profile32, 12 * mb, 8 * mb},
		{"GOMEMLIMIT is strictest, and stays", profileAuto, memoryLimits{machine: 24 * gb, cgroup: 64 * mb, environment: 30 * mb}, profile32, 30 * mb, 0},
		{"GOMEMLIMIT above the group", profileAuto, memoryLimits{cgroup: 64 * mb, environment: 300 * mb}, profile64, 64 * mb, 0},
		{"asked for, on a large machine", profile32, memoryLimits{machine: 24 * gb}, profile32, 32 * mb, 24 * mb},
		{"asked for, in a smaller group", profile256, memoryLimits{cgroup: 64 * mb}, profile256, 64 * mb, 56 * mb},
		{"full in a small group", profileFull, memoryLimits{cgroup: 64 * mb}, profileFull, 64 * mb, 56 * mb},
		{"asked for, nothing known", profile64, memoryLimits{}, profile64, 64 * mb, 56 * mb},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := chooseProfile(tc.want, tc.m)
			if p.name != tc.profile || p.limit != tc.limit || p.heap != tc.heap {
				t.Errorf("profile %s, limit %d, heap %d; want %s, %d, %d", p.name, p.limit, p.heap, tc.profile, tc.limit, tc.heap)
			}
			if p.why == "" || p.gc <= 0 || p.width <= 0 {
				t.Errorf("%+v", p)
			}
		})
	}
}

// TestProfilesFit adds up the buffers of 64 KiB that the tunnel may hold: of a small
// profile they leave half of the memory to the rest.
func TestProfilesFit(t *testing.T) {
	const buffer = 64 << 10
	for _, n := range []profileName{profile32, profile64, profile256} {
		p := sizes(n)
		b := p.bounds
		// The device reads three sockets and the link, each with a batch; a batch
		// more than the bound may be in flight.
		packets := 4*b.Batch + 2*(b.InFlight+b.Batch) + b.StagedAll + max(1, b.Handshakes/5)
		sum := int64(packets+3*p.slots) * buffer
		if half := n.megabytes() / 2; sum > half {
			t.Errorf("profile %s: %d KB of packets, want at most %d", n, sum>>10, half>>10)
		}
	}
}
