//go:build !nokube

package main

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// newRuntimeMetrics returns what writes the metrics that every Go program has, in
// the text format.
func newRuntimeMetrics() func(io.Writer) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return func(w io.Writer) error {
		families, err := registry.Gather()
		if err != nil && len(families) == 0 { // else families still holds what could be gathered
			return fmt.Errorf("gather metrics: %w", err)
		}
		enc := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
		for _, f := range families {
			if err := enc.Encode(f); err != nil {
				return fmt.Errorf("write metrics: %w", err)
			}
		}
		return nil
	}
}
