// Package outbound is how programs of a site reach other domains where nothing leads
// their packets into the tunnel: a [Dialer] that knows what may be dialled, and port
// maps ([Maps]). The protocols in front of it are in corax/proxy/socks.
//
//	program ─► SOCKS5, HTTP CONNECT ─┐
//	program ─► port map              ├─► Dialer ─► Network ─► tunnel ─► pod
//	corax nc ─► local API            ┘     │
//	                                       └─ names: the cluster's DNS, over the tunnel
//
// Only what a tunnel carries is dialled: an address in a subnet of another domain. The
// address of a Service stands for its ready endpoints, as the API server knows them.
// Names are looked up first and the addresses checked then, so that no answer of a
// name server leads to this host or its network.
package outbound
