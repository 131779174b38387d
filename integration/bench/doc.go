// Bench measures Corax beside other ways to connect the pods of two domains:
//
//	go run ./integration/bench -corax bin/corax
//
// Every system carries the same traffic over the same topology, seven network
// namespaces joined by veth pairs, in rounds that take turns:
//
//	pod ── node ── gateway ── WAN ── gateway ── node ── pod
//	   cni0   LAN a       203.0.113.0/24     LAN b   cni0
//
// Each round builds the networks anew, starts one system, and measures the
// resident memory, TCP both ways with the CPU time it costs, UDP packets per
// second and round trips. The figures printed are medians over the rounds, and
// ratios to plain wireguard-go and to kernel routing. A benchmark asserts nothing:
// the exit code is 0 unless something did not run.
//
// Then it measures what finding and keeping paths costs, with agents on sites around
// a WAN, see -parts: a hub that relays compared with the direct way, how long
// pairs of NATs take, a hub with 105 pairs, an agent with 1,000 peers, and a rootless edge.
//
// Traffic comes from processes of its own (this program, run as "bench traffic"),
// which block in system calls, so that they share no Go scheduler with anything
// that is measured.
package main
