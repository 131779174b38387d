// Package tunnel tests tunnel mode as a whole: real corax agents in the network
// namespaces of [corax/integration/lab], with pods, NATs and Services.
//
//	CORAX_BIN=bin/corax go test ./integration/tunnel
//
// What takes longer than a minute is named TestSoak: with CORAX_SOAK set it runs as
// long as it should, without it in a short form where that makes sense.
package tunnel
