// Package rootless tests agents that have no privilege and no TUN: edge gateway
// nodes whose agent is user 65534, without capabilities, with no_new_privs, a
// seccomp filter like a container's, and without /dev/net/tun, against a hub with a
// TUN.
package rootless
