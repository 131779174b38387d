// Package deploy holds nothing but tests of what is shipped beside the program:
//
//	crd/         the Gateway CRD, and nothing else
//	chart/corax  the Helm chart, the source of all manifests
//	manifests/   what the chart renders, as kustomize bases: base, profiles, presets
//	charttest/   a module of its own that renders the chart and writes manifests/
//	dashboards/  alert rules, and a dashboard for Grafana
//	image/       makes the container image
//	examples/    agents without privileges in containers
//	systemd/     a unit and an example for nodes outside Kubernetes
package deploy
