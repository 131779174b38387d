//go:build !nokube

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"corax/control/controller"
)

func newControllerCommand() *cobra.Command {
	var cfg controllerConfig
	settings := append(clusterSettings(&cfg), controllerSettings(&cfg)...)
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller of a cluster",
		Long: `Run the controller of a cluster: it makes a Gateway object for the cloud, for every
edge NodePool and for every edge node that stands alone, labels their nodes, elects
those that carry the traffic, and exposes them. Several may run; one of them acts.

It leaves alone what people made, and what yurt-manager wrote within a day.

Exit codes: 0 stopped, 1 failed or lost its Lease, 3 wrong usage.`,
		Args: cobra.NoArgs,
	}
	registerController(cmd, settings)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := cfg.parse(cmd, settings); err != nil {
			return err
		}
		return controller.Run(cmd.Context(), cfg.Config)
	})
	cmd.AddCommand(newUninstallCommand())
	return cmd
}

func newUninstallCommand() *cobra.Command {
	var (
		cfg        controllerConfig
		deployment string
		timeout    time.Duration
	)
	settings := append(clusterSettings(&cfg),
		&setting{
			flag: "deployment", def: "corax-controller", arg: "NAME", parse: text(&deployment),
			usage: "Deployment of the controller in --namespace, which is scaled to zero first",
		},
		&setting{
			flag: "timeout", def: "4m", arg: "DURATION", parse: duration(&timeout),
			usage: "how long to wait for what is being deleted, such as balancers",
		},
	)
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what the controller made",
		Long: `Remove what the controller made: Gateways, node labels, Services and their finalizers,
ConfigMaps, Leases. What people made stays. The controller is stopped first. It may be
run again, and does nothing when nothing is there.

Exit codes: 0 nothing is left, 1 something is, 3 wrong usage.`,
		Args: cobra.NoArgs,
	}
	registerController(cmd, settings)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := cfg.parse(cmd, settings); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		return controller.Uninstall(ctx, cfg.Config, deployment)
	})
	return cmd
}

func registerController(cmd *cobra.Command, settings []*setting) {
	cmd.Flags().SortFlags = false
	register(cmd.Flags(), settings)
	completeValues(cmd, settings)
}

// parse fills c from the flags, and sends log lines of all libraries to one place.
func (c *controllerConfig) parse(cmd *cobra.Command, settings []*setting) error {
	var errs []error
	for _, s := range settings {
		errs = append(errs, s.resolve())
	}
	err := errors.Join(errs...)
	if err == nil {
		c.fill()
		err = c.Validate()
	}
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("%s: %w", cmd.Name(), mistakes{err}), "try: " + cmd.CommandPath() + " --help"}
	}
	c.Log = newLogger(cmd.ErrOrStderr(), c.level, c.format)
	crlog.SetLogger(logr.FromSlogHandler(c.Log.Handler()))
	klog.SetSlogLogger(c.Log)
	return nil
}
