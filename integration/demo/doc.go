// Command demo shows Corax at work: a cloud domain and two edge domains behind
// NATs, as network namespaces on this machine, with a real agent on every node
// and traffic between their pods. It needs no Kubernetes and, where the kernel
// allows user namespaces and /dev/net/tun is open to the user, no root.
//
//	go run ./integration/demo [-corax bin/corax] [-keep]
package main
