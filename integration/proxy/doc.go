// Package proxy tests proxy mode with real agents and without Kubernetes: Gateway
// objects come from a directory, tunnels are off, and two edges behind NATs have
// nodes with the same addresses.
package proxy
