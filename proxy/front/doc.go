// Package front is where requests for nodes come in, on a gateway node that others
// of the cluster can reach. It finds out which node is meant and who asks, has a
// [proxy.Dialer] connect to the node, and copies.
//
//	TLS      server name is a node      passed through untouched: the caller's TLS
//	                                    ends at the node
//	         server name is our own     ended here, then as HTTP
//	         any other                  alert unrecognized_name
//	HTTP     X-Tunnel-Proxy-Host and -Dest, ?nodeName=, or Host
//	CONNECT  node:port, behind mTLS or on a unix socket
//
// Nothing but nodes can be asked for, but by CONNECT the addresses of
// [ConnectTLS].Cluster, which this host dials: a host is looked up in the table of the
// [Plan], by name first, and an address is taken only when exactly one node has it.
// What is dialled is always a node and a port, never what somebody wrote.
//
// # Whose rights
//
// The front has no rights of its own at any node. A stream that is passed through
// carries the caller's own credentials, unseen. Where TLS ends here, or where there
// was none, the caller is authenticated by bearer token or client certificate, is
// authorized for nodes/metrics or nodes/proxy of that node, and then its own bearer
// token goes on to the node, when the node proved itself with a certificate of the
// kubelet CA; so the node decides once more, by the caller's rights. A token never
// goes over a plain connection to a node, and a client certificate cannot go on at
// all: such a caller reaches plain ports, or uses the node's own name.
//
// # One request per connection
//
// HTTP connections are not kept alive, neither with callers nor with nodes, and the
// head of a request is checked strictly before anything reads it: no request can
// hide behind another one, and none can travel in a connection that somebody else
// authenticated.
package front
