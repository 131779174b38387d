// Package inner carries what a program sends that has a network namespace of its own,
// whose default route is a TUN that the namespace's maker holds: corax run.
//
//	program ─► TUN ─► netstack.Site ─► Handler ─► Dialer ─► agent ─► tunnel ─► pod
//
// A TCP connection is dialled first and accepted then, so that a refused port is a
// reset for the program, a silent one a timeout, and what no tunnel carries an ICMP
// error. A UDP flow is a connection of the Dialer's with an idle timer; that its other
// end has no socket becomes ICMP port unreachable. Pings are flows, too, of one
// identifier each. One address in the namespace is a name server: what is sent to its
// port 53 goes to the cluster's.
package inner
