//go:build linux

package main

import (
	"context"
	"flag"
	"io"
	"time"

	"corax/integration/demo/stage"
	"corax/integration/lab"
)

func main() {
	datapath := flag.String("datapath", "auto", "how the edges' agents get packets: tun, netstack (rootless), or auto: netstack on all nodes where no TUN can be had")
	stage.Main(stage.Demo{
		Name: "corax-demo", Limit: 2 * time.Minute, WithoutTUN: true,
		Show: func(ctx context.Context, l *lab.Lab, out io.Writer) error {
			r, err := chooseRootless(*datapath, lab.HasTUN())
			if err != nil {
				return err
			}
			return show(ctx, l, out, r)
		},
	})
}
