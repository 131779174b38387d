// Package portmaptest is a fake default router for tests: PCP, NAT-PMP and a
// UPnP IGD on a loopback address of its own, with faults to switch on. It
// forwards nothing; it only answers and remembers. Its codec is its own, so that
// a mistake in the client's is not made twice.
package portmaptest
