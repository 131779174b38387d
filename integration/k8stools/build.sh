#!/bin/sh
# Prints the folder with the Kubernetes programs that the tests run (etcd,
# kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl,
# metrics-server: links to one binary), building it when there is none for this
# content; with -n only when it is there. The first build takes about 10 minutes
# of two cores and 4 GB of Go's caches. CORAX_K8S_CACHE names a folder to keep
# builds in, instead of bin.
set -eu
cd "$(dirname "$0")"
go=${GO:-go}
version=v$(sed -n 's|^\tk8s.io/kubernetes v||p' go.mod)
programs="etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl metrics-server"
flags="-s -w"
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags="$flags -X $p.gitVersion=$version -X $p.gitMajor=1 -X $p.gitMinor=$(echo "$version" | cut -d. -f2)"
done

cache=${CORAX_K8S_CACHE:-$(cd ../.. && pwd)/bin}
key=$({ cat go.mod go.sum main.go && $go version && echo "$flags $programs"; } | sha256sum | cut -c1-16)
out=$cache/k8s-$key
if [ -x "$out/k8sall" ]; then
	echo "$out"
	exit 0
fi
[ "${1:-}" != -n ] || exit 1

echo "building the programs of Kubernetes $version (about 10 minutes, once)" >&2
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.k8s-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
GOWORK=off GOFLAGS="-mod=readonly -buildvcs=false" CGO_ENABLED=0 \
	$go build -trimpath -ldflags "$flags" -o "$tmp/k8sall" . >&2
for p in $programs; do
	ln -s k8sall "$tmp/$p"
done
chmod 755 "$tmp"
mv -T "$tmp" "$out" 2>/dev/null || [ -x "$out/k8sall" ] # a build beside this one was first
echo "$out"
