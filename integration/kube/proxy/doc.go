// Package proxy holds the tests of proxy mode with the real programs: a
// kube-apiserver, kubelets with containerd, kubectl, metrics-server, Prometheus.
// There is nothing here but tests.
package proxy
