// Package portmap asks the default router to forward a UDP port to this node,
// so that peers can send to it first: a port-mapped candidate.
//
//	            ┌ PCP      RFC 6887   UDP 5351   also opens IPv6 firewalls ("pinhole")
//	gateway  ◄──┼ NAT-PMP  RFC 6886   UDP 5351
//	            └ UPnP IGD            SSDP on UDP 1900, then SOAP over HTTP
//
// The three are asked at the same time, with timeouts made for a LAN; the first
// of that order that answers and grants is used. [Mapper.Run] keeps the mapping
// while it is wanted: it is renewed at half its lifetime and at least every ten
// minutes (which is also how a silent reboot of the router is noticed: by its
// epoch, RFC 6887 section 8.5 and RFC 6886 section 3.6), made again when the
// router announces that it lost it, and deleted at the end. When nothing
// answers, the next try is at most an hour away.
//
// A mapping whose external address is not a public one (there is a second NAT
// in front of the router) is kept, because it makes the inner NAT open, but it
// is reported and not offered as a candidate.
//
// What the router says is not trusted further than it must be: only answers from
// the default router's own address count, an IGD's URLs must name that address
// as a literal, redirects and proxies are not followed, everything read is
// bounded in time and size, and a URL is never fetched anywhere else.
//
// The machine that decides what to do next ([machine]) is pure: it takes the time
// as an argument. One goroutine per address family owns it.
package portmap
