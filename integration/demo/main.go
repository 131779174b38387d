//go:build linux

package main

import (
	"time"

	"corax/integration/demo/stage"
)

func main() {
	stage.Main(stage.Demo{Name: "corax-demo", Limit: 2 * time.Minute, Show: show})
}
