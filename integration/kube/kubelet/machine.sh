#!/bin/sh
# The first process of a machine: its namespaces, then containerd, then kubelet.
# machine.sh NAME DIR CGROUP KUBELET; DIR has what Start wrote.
set -eu
name=$1 dir=$2 cgroup=$3 kubelet=$4

if [ -z "${MACHINE_INSIDE:-}" ]; then
	for c in /sys/fs/cgroup/*/; do
		[ ! -L "${c%/}" ] && [ -e "$c/tasks" ] || continue
		mkdir -p "$c$cgroup"
		for f in cpuset.cpus cpuset.mems; do
			[ ! -e "$c$f" ] || cat "$c$f" >"$c$cgroup/$f"
		done
		echo 0 >"$c$cgroup/cgroup.procs" # this shell
	done
	exec env MACHINE_INSIDE=1 unshare --cgroup "$0" "$@"
fi

hostname "$name"
mount -t proc proc /proc
controllers=$(cd /sys/fs/cgroup && for c in */; do [ -L "${c%/}" ] || [ ! -e "$c/tasks" ] || echo "${c%/}"; done)
mount -t tmpfs tmpfs /sys/fs/cgroup
for c in $controllers; do
	mkdir "/sys/fs/cgroup/$c"
	o=$c
	[ "$c" != systemd ] || o=none,name=systemd
	mount -t cgroup -o "$o" cgroup "/sys/fs/cgroup/$c"
done

mkdir -p "$dir/lib/kubelet" "$dir/lib/containerd" "$dir/log"
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log
# The kubelet sets these for the whole kernel; it finds what it wants.
for s in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
	f=$dir/sysctl-$(basename "${s%=*}")
	echo "${s#*=}" >"$f"
	mount --bind "$f" "/proc/sys/${s%=*}"
done

containerd --config "$dir/containerd.toml" >>"$dir/containerd.log" 2>&1 &
tries=0
until ctr version >/dev/null 2>&1; do
	tries=$((tries + 1))
	[ $tries -lt 300 ] || exit 1
	sleep 0.1
done
ctr -n k8s.io images import "$dir/image.tar" >>"$dir/containerd.log" 2>&1
"$kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$dir/kubeconfig" --cert-dir="$dir/pki" \
	--hostname-override="$name" --node-ip="$(cat "$dir/node-ip")" >>"$dir/kubelet.log" 2>&1 &
wait $!
