// Package kubelet runs real kubelets, with containerd and runc from the
// distribution, on hosts of a lab: several on one machine, also with equal IPs.
//
// Each has a "machine" of its own: mount, PID, IPC, UTS and cgroup namespaces, whose
// first process is machine.sh. So all that kubelet and containerd have at fixed
// paths is there as often as there are machines, and the end of the first process
// is the end of all. Containers use one image, which is made on the spot out of
// the distribution's static busybox; there is no registry and no CNI plugin: Pods
// are in the host's network.
//
// It needs root, cgroup v1 and the packages containerd, runc and busybox-static.
// Where they are missing a test is skipped, or fails when CI is set.
package kubelet
