//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "corax bench: it needs Linux: the hosts are network namespaces")
	os.Exit(1)
}
