package kube

import (
	"log/slog"
	"slices"

	"corax/control"
	"corax/control/api/v1beta1"
)

// snapshot puts together what is known. gateways are sorted by name, and allow is
// the allow list in force before.
func snapshot(cfg Config, gateways []v1beta1.Gateway, problems []control.Problem, raw settings, allow allowed) control.Snapshot {
	sw := raw.parse(cfg, allow)
	return control.Snapshot{
		Gateways:     gateways,
		EnableTunnel: sw.tunnel,
		EnableProxy:  sw.proxy,
		AllowSources: sw.allow.list,
		AllowClosed:  sw.allow.closed,
		Problems:     control.SortProblems(slices.Concat(problems, sw.problems)),
	}
}

// listing returns the Gateways that list the node in spec.endpoints.
func listing(gateways []v1beta1.Gateway, node string) []v1beta1.Gateway {
	var out []v1beta1.Gateway
	for _, g := range gateways {
		if slices.ContainsFunc(g.Spec.Endpoints, func(e v1beta1.Endpoint) bool { return e.NodeName == node }) {
			out = append(out, g)
		}
	}
	return out
}

// logProblems logs the problems that came and went.
func logProblems(log *slog.Logger, before, after []control.Problem) {
	for _, p := range after {
		if !slices.Contains(before, p) {
			log.Warn("problem in the objects of the cluster", "problem", p.String())
		}
	}
	for _, p := range before {
		if !slices.Contains(after, p) {
			log.Info("problem in the objects of the cluster is gone", "problem", p.String())
		}
	}
}
