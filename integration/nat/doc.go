// Package nat tests NAT traversal as a whole: real corax agents behind the kernel
// NATs of [corax/integration/lab].
//
//	CORAX_BIN=bin/corax go test ./integration/nat
//	CORAX_BIN=bin/corax go test ./integration/nat -run Grid -update    writes docs/nat.md
//
// What takes longer than a minute is named TestSoak and runs with CORAX_SOAK set.
package nat
