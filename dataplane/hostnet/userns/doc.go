// Package userns does what [hostnet] does in the network namespace of a child user
// namespace, for an agent that stays outside and has no capability. The owner of a user
// namespace has every capability in it, so no more than that is needed.
//
//	agent's namespaces                    child user namespace, its network namespace
//	┌──────────────────────┐  calls  ┌────────────────────────────┐
//	│ agent   Host ────────┼─────────┼─► helper   hostnet.Host    │
//	│         TUN ◄────────┼── fd ───┼──          TUN, routes ... │   workload
//	│         UDP sockets  │◄────────┼── events                   │
//	└──────────────────────┘         └────────────────────────────┘
//
// A process must be alone with itself to enter a user namespace, and a Go program has
// several threads from its beginning. So [Enter] forks a child that makes nothing but
// system calls before it becomes this program again, inside: see fork_linux.go. Nothing
// else has to be installed.
//
// The helper knows no more than [Serve]: it answers calls, one after another, and says
// when something changed inside. It never speaks to anybody else, has CAP_NET_ADMIN in
// the child user namespace and no other capability, and ends when its sockets close:
// with the agent, however that ends. The TUN is persistent, so a killed agent leaves its
// routes in force, as in the host's own namespace.
package userns
