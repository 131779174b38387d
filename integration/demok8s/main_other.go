//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "corax demo: it needs Linux: the domains are network namespaces")
	os.Exit(1)
}
