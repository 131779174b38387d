// Package cluster runs a real Kubernetes control plane for tests and demos: etcd,
// kube-apiserver and, when asked, kube-controller-manager, as processes of their
// own, on loopback or on a host of a lab.
//
//	test ── Config (admin), AgentConfig (token bound to a Pod of a node) ──┐
//	                                                                       ▼
//	kube-controller-manager ──────────────────────────────────────► kube-apiserver ──► etcd
//	                                                                       │
//	test ◄── Writes: who wrote what, of the audit log ─────────────────────┘
//
// Nodes are objects without a kubelet: the test says whether they are Ready.
// Nothing schedules or runs Pods. The programs are those of
// integration/k8stools; without them a test is skipped, or fails when CI is set.
//
// Helpers fail the test themselves and return no error. Everything ends with
// the test that started it. A program that is no test uses them in Run.
package cluster
