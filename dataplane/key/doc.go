// Package key holds the keys of a node as types that cannot be mixed up: a
// Private prints redacted and has no text form for logs or JSON, a Public is
// comparable and prints as WireGuard does, a Preshared is derived from the
// cluster's secret. It also derives overlay addresses and keeps the key pair in
// the state directory.
package key
