// Package lab builds small networks out of Linux network namespaces, inside one
// process and without external programs, and runs real corax agents in them.
//
//	      pod ── cni0 ┐                          ┌ cni0 ── pod
//	               cloud-gw   cloud-1         edge-a-gw   edge-a-1
//	                  └────┬────┘                 └────┬────┘
//	cloud LAN 203.0.113.128/25                   192.168.1.0/24   edge-b alike
//	                   internet ─── WAN ─────── edge-a-router        │
//	                           203.0.113.0/25  ─────────────── edge-b-router
//
// A [Lab] holds hosts and LANs. A [Host] is a network namespace, a mount
// namespace with its own /run, and one OS thread that lives in both. No
// namespace has a name and every child process dies with the thread that
// started it, so a lab leaves nothing behind, even after SIGKILL. [LAN] is a
// bridge, [Lab.Router] a host with a NAT, [Node] a host with pods as a CNI plugin
// lays them and Services as kube-proxy does. [Host.Agent] starts corax.
// [Standard] builds the picture above.
//
// Building methods (Host, LAN, Attach, Route, Pod, ...) return no error: the first
// failure ends the test, or without a test is kept for [Lab.Err], and what
// follows does nothing. Methods that send traffic return their errors.
//
// Without root, [Main] or [Reexec] first moves the program into a user namespace.
//
// The lab never speaks for an agent: it reads the agent's HTTP API and the wire,
// with types of its own.
package lab
