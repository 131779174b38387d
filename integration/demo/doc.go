// Command demo shows Corax at work: a cloud domain and two edge domains behind
// NATs, as network namespaces on this machine, with a real agent on every node
// and traffic between their pods. At the end a transfer between the two edges
// begins over a relay and becomes direct: what is printed of it comes from the
// agents' local API and from the bytes that arrive. It needs no Kubernetes and,
// where the kernel allows user namespaces, no root. Where /dev/net/tun is missing or
// not open to the user, or with -datapath netstack for the edges, agents do without
// a TUN and without privileges.
//
//	go run ./integration/demo [-corax bin/corax] [-datapath netstack] [-keep]
package main
