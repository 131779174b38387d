//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Bounds of the API server's start and end. A machine under load takes tens of
// seconds.
const (
	startWithin = 2 * time.Minute
	stopWithin  = time.Minute
)

// Issuer is the issuer of service account tokens, and their audience.
const Issuer = "https://kubernetes.default.svc.cluster.local"

func (c *Cluster) apiArgs(serving pair) []string {
	args := []string{
		"--bind-address=" + c.api.Addr().String(), fmt.Sprintf("--secure-port=%d", c.api.Port()),
		"--advertise-address=" + c.api.Addr().String(), "--endpoint-reconciler-type=none",
		"--etcd-servers=http://" + c.etcd.String(),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + c.pki.file("ca.crt"),
		"--tls-cert-file=" + serving.certFile, "--tls-private-key-file=" + serving.keyFile,
		"--service-account-issuer=" + Issuer,
		"--service-account-signing-key-file=" + c.pki.file("sa.key"),
		"--service-account-key-file=" + c.pki.file("sa.pub"),
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
		"--allow-privileged=true", "--profiling=false",
		"--audit-policy-file=" + c.file("audit.yaml"), "--audit-log-path=" + c.file("audit.log"),
		"--audit-log-maxsize=2000",
		"--shutdown-watch-termination-grace-period=1s", // else a stop waits a minute for watches
	}
	return append(append(args, c.kubeletArgs...), c.opt.APIArgs...)
}

// startAPI starts the API server and waits until it is ready.
func (c *Cluster) startAPI(ctx context.Context, serving pair) error {
	p, err := c.start("kube-apiserver", c.apiArgs(serving)...)
	if err != nil {
		return err
	}
	c.server, c.serving, c.processes["kube-apiserver"] = p, serving, p
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, errors.New("the API server is not ready"))
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		select {
		case <-p.Done():
			ended(errors.New("the API server ended"))
		case <-ctx.Done():
		}
	}()
	if err := wait(ctx, 50*time.Millisecond, c.Ready); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(c.logFile("kube-apiserver"), 10))
	}
	return nil
}

// Ready asks the API server for /readyz; nil means ready.
func (c *Cluster) Ready(ctx context.Context) error {
	return c.Client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// StopAPI stops the API server with SIGTERM and returns when it is gone: its
// port refuses connections. etcd keeps its data.
func (c *Cluster) StopAPI(t T) {
	t.Helper()
	if err := c.server.Stop(stopWithin); err != nil {
		t.Fatalf("cluster: stop the API server: %v", err)
	}
	c.server, c.processes["kube-apiserver"] = nil, nil
}

// KillAPI stops the API server with SIGKILL.
func (c *Cluster) KillAPI(t T) {
	t.Helper()
	if err := c.server.Kill(); err != nil {
		t.Fatalf("cluster: kill the API server: %v", err)
	}
	c.server, c.processes["kube-apiserver"] = nil, nil
}

// StartAPI starts a stopped API server again, on the same port and data, and
// waits until it is ready.
func (c *Cluster) StartAPI(t T) {
	t.Helper()
	if err := c.startAPI(t.Context(), c.serving); err != nil {
		t.Fatalf("cluster: start the API server again: %v", err)
	}
}

// SetAPI replaces Options.Hosts and Options.APIArgs for the next StartAPI.
func (c *Cluster) SetAPI(hosts string, args ...string) { c.opt.Hosts, c.opt.APIArgs = hosts, args }
