package main

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestProcessMemory(t *testing.T) {
	const none = math.MaxInt64
	for _, tt := range []struct {
		name    string
		runtime int64
		files   map[string]string
		want    int64
	}{
		{"the runtime was told", 300 << 20, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 300 << 20},
		{"a container", none, map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n", "proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
		}, 256 << 20},
		{"a group around it", none, map[string]string{
			"proc/self/cgroup": "0::/kubepods/pod1/c1\n", "sys/fs/cgroup/kubepods/pod1/c1/memory.max": "max\n",
			"sys/fs/cgroup/kubepods/pod1/memory.max": "134217728\n", "sys/fs/cgroup/kubepods/memory.max": "1073741824\n",
		}, 128 << 20},
		{"version 1", none, map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/a\n9:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "67108864\n", "proc/meminfo": "MemTotal: 1000000 kB\n",
		}, 64 << 20},
		{"no limit", none, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "proc/meminfo": "MemTotal: 1000 kB\n"}, 1000 << 10},
		{"nobody says", none, nil, assumedMemory},
		{"nonsense", none, map[string]string{"proc/self/cgroup": "x\n::\n0::../..\n", "sys/fs/cgroup/memory.max": "lots", "proc/meminfo": "MemTotal:\n"}, assumedMemory},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := processMemory(tt.runtime, root); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}
