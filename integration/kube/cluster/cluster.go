//go:build linux

package cluster

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"corax/integration/lab"
)

// apiPort is where the API server listens on a host of a lab.
const apiPort = 6443

// Options configure a Cluster. The zero value is etcd and kube-apiserver on
// loopback.
type Options struct {
	// Host, when not nil, is the host of a lab that the control plane runs on;
	// others reach the API server at Addr, port 6443.
	Host *lab.Host
	Addr netip.Addr
	// Controllers are the controllers that kube-controller-manager runs, named as
	// its flag --controllers takes them; empty: it does not run. See UsualControllers.
	Controllers []string
	// Kubelets makes the API server one for nodes with real kubelets: it dials them
	// by name, verifies their certificates, and takes the aggregated API of a
	// metrics-server. SigningController must be among the Controllers.
	Kubelets bool
	// APIArgs are further arguments of kube-apiserver.
	APIArgs []string
	// Hosts, when not empty, is a file that the API server has as /etc/hosts, as one
	// that is mounted into its static Pod.
	Hosts string
}

// SigningController is the controller that signs certificates.
const SigningController = "certificatesigningrequest-signing-controller"

// UsualControllers are all of kube-controller-manager's but those that judge
// nodes: there is no kubelet whose heartbeats they could see.
func UsualControllers() []string {
	return []string{"*", "-node-lifecycle-controller", "-taint-eviction-controller", "-pod-garbage-collector-controller"}
}

// Cluster is a running control plane. Its methods may be called from several
// goroutines, except StopAPI, StartAPI and KillAPI.
type Cluster struct {
	// Client speaks as a cluster administrator.
	Client *kubernetes.Clientset

	opt      Options
	tools    string
	dir      string
	pki      *pki
	etcd     netip.AddrPort
	etcdPeer netip.AddrPort
	api      netip.AddrPort
	admin    *rest.Config

	kubeletArgs []string // of kube-apiserver, with Options.Kubelets

	serving   pair
	server    process // kube-apiserver; nil while it is stopped
	processes map[string]process
}

// Start starts a control plane and waits until the API server is ready; with the
// test, or the program, it ends.
func Start(t T, opt Options) *Cluster {
	t.Helper()
	c := &Cluster{opt: opt, tools: Tools(t), dir: t.TempDir(), processes: make(map[string]process)}
	t.Cleanup(func() { c.close(t) })
	if err := c.run(t.Context()); err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return c
}

func (c *Cluster) run(ctx context.Context) error {
	if err := c.addresses(); err != nil {
		return err
	}
	var err error
	if c.pki, err = newPKI(c.dir); err != nil {
		return err
	}
	if c.admin, err = c.clientConfig("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}); err != nil {
		return err
	}
	if err := writeKubeconfig(c.file("admin.kubeconfig"), c.admin); err != nil {
		return err
	}
	if c.Client, err = kubernetes.NewForConfig(c.admin); err != nil {
		return err
	}
	serving, err := c.pki.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, c.api.Addr(), netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		return err
	}
	if c.opt.Kubelets {
		if c.kubeletArgs, err = c.forKubelets(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.file("audit.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	if c.processes["etcd"], err = c.start("etcd", c.etcdArgs()...); err != nil {
		return err
	}
	if err := c.startAPI(ctx, serving); err != nil {
		return err
	}
	return c.startControllers()
}

// addresses chooses where the programs listen. On loopback the ports are free
// ones; all are held at once while they are chosen, so that they differ.
func (c *Cluster) addresses() error {
	if c.opt.Host != nil {
		local := netip.MustParseAddr("127.0.0.1")
		c.etcd, c.etcdPeer = netip.AddrPortFrom(local, 2379), netip.AddrPortFrom(local, 2380)
		c.api = netip.AddrPortFrom(c.opt.Addr, apiPort)
		return nil
	}
	for _, at := range []*netip.AddrPort{&c.etcd, &c.etcdPeer, &c.api} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = ln.Close() }()
		*at = ln.Addr().(*net.TCPAddr).AddrPort()
	}
	return nil
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) etcdArgs() []string {
	client, peer := "http://"+c.etcd.String(), "http://"+c.etcdPeer.String()
	return []string{
		"--data-dir=" + c.file("etcd"), "--name=default", "--initial-cluster=default=" + peer,
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--unsafe-no-fsync", "--log-level=warn",
	}
}

// startControllers starts kube-controller-manager, when there is something to run.
func (c *Cluster) startControllers() error {
	if len(c.opt.Controllers) == 0 {
		return nil
	}
	cfg, err := c.clientConfig("controllers", pkix.Name{CommonName: "system:kube-controller-manager", Organization: []string{"system:masters"}})
	if err != nil {
		return err
	}
	cfg.Dial = nil // it runs beside the API server
	if err := writeKubeconfig(c.file("controllers.kubeconfig"), cfg); err != nil {
		return err
	}
	args := []string{
		"--kubeconfig=" + c.file("controllers.kubeconfig"), "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file=" + c.pki.file("sa.key"),
		"--root-ca-file=" + c.pki.file("ca.crt"), "--secure-port=0",
		"--cluster-signing-cert-file=" + c.pki.file("ca.crt"), "--cluster-signing-key-file=" + c.pki.file("ca.key"),
	}
	for _, name := range c.opt.Controllers {
		args = append(args, "--controllers="+name)
	}
	c.processes["kube-controller-manager"], err = c.start("kube-controller-manager", args...)
	return err
}

// close ends every process. Their data is thrown away, so they need no grace.
func (c *Cluster) close(t T) {
	for name, p := range c.processes {
		if p == nil {
			continue
		}
		select {
		case <-p.Done():
			t.Errorf("cluster: %s ended by itself:\n%s", name, tail(c.logFile(name), 15))
		default:
		}
	}
	for name, p := range c.processes { // only now: one may end because another did
		if p == nil {
			continue
		}
		if err := p.Kill(); err != nil {
			t.Errorf("cluster: %s: %v", name, err)
		}
	}
}

// Eventually waits until f returns nil, asking ten times a second. After the
// given time the test fails with what f said last.
func Eventually(t T, within time.Duration, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := wait(ctx, 100*time.Millisecond, f); err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}

// wait calls f until it returns nil. The error says what f said last.
func wait(ctx context.Context, every time.Duration, f func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // else the end of ctx hides what is wrong
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
