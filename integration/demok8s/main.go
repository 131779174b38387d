//go:build linux

package main

import (
	"time"

	"corax/integration/demo/stage"
)

func main() {
	stage.Main(stage.Demo{Name: "corax-demo-k8s", Limit: 5 * time.Minute, Show: show})
}
