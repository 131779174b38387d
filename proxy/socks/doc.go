// Package socks lets programs of a site into the tunnel that speak a proxy protocol:
// SOCKS5 (RFC 1928) with CONNECT and UDP ASSOCIATE, optionally with user and password
// (RFC 1929), and HTTP CONNECT (RFC 9110 section 9.3.6). What may be dialled, and how
// names are looked up, is the business of the [Dialer] behind.
//
// Both listen where only programs of this host can connect: on loopback, or on a unix
// socket.
package socks
