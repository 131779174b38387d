// Command demok8s shows Corax on a real Kubernetes API: etcd and kube-apiserver, a
// `corax controller`, and agents on the nodes of a cloud and of two edges behind
// NATs, all as processes in network namespaces on this machine. Nodes and NodePools
// become Gateways, agents publish their keys, pods of all domains reach each other.
// Then the gateway node of an edge dies in the middle of a transfer; what is
// printed of that comes from the bytes that arrive, and from kubectl. Where the
// kernel allows user namespaces and /dev/net/tun is open to the user, it needs no
// root.
//
// It needs the programs that integration/k8stools/build.sh builds.
//
//	go run ./integration/demok8s [-corax bin/corax] [-keep]
package main
