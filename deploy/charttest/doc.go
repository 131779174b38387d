// Package charttest renders the Helm chart and proves what it renders: that the
// manifests beside it are the chart's own output, so that there is one source of
// truth, and that every combination of values gives objects that fit together.
//
// It is a module of its own because Helm's and kustomize's libraries would
// triple what the project depends on.
package charttest
