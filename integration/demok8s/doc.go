// Command demok8s shows Corax on a real Kubernetes API: etcd and kube-apiserver, a
// `corax controller`, and agents on the nodes of a cloud and of two edges behind
// NATs, all as processes in network namespaces on this machine. Nodes and NodePools
// become Gateways, agents publish their keys, pods of all domains reach each other.
// Then the gateway node of an edge dies in the middle of a transfer; what is
// printed of that comes from the bytes that arrive, and from kubectl. At the end
// kubectl reads logs and runs programs on two edge nodes that have the same IP, with
// real kubelets. That part needs root, containerd, runc and a static busybox;
// the rest needs no root where the kernel allows user namespaces and /dev/net/tun is
// open to the user.
//
// It needs the programs that integration/k8stools/build.sh builds.
//
//	go run ./integration/demok8s [-corax bin/corax] [-keep]
package main
