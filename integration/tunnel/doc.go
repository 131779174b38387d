// Package tunnel tests tunnel mode as a whole: real corax agents in the network
// namespaces of [corax/integration/lab], with pods, NATs and Services.
//
//	CORAX_BIN=bin/corax go test ./integration/tunnel
//
// Tests that take longer than a minute are named TestSoak and run only with
// CORAX_SOAK set; without it they run in a short form.
package tunnel
