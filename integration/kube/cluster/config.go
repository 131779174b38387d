//go:build linux

package cluster

import (
	"crypto/x509/pkix"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Addr returns where the API server listens.
func (c *Cluster) Addr() netip.AddrPort { return c.api }

// Config returns how to speak as a cluster administrator. It works in the test's
// process, wherever the control plane runs, and has no limit of queries.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// UserConfig returns how to speak as a user of some groups, by a client
// certificate.
func (c *Cluster) UserConfig(t T, user string, groups ...string) *rest.Config {
	t.Helper()
	cfg, err := c.clientConfig("user-"+filepath.Base(user), pkix.Name{CommonName: user, Organization: groups})
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return cfg
}

// Kubeconfig writes a configuration to a file that programs can use, on the
// control plane's network: anywhere on this machine, or on hosts of the lab that
// reach it. It returns the file's path.
func (c *Cluster) Kubeconfig(t T, cfg *rest.Config) string {
	t.Helper()
	f, err := os.CreateTemp(c.dir, "kubeconfig-")
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	_ = f.Close()
	if err := writeKubeconfig(f.Name(), cfg); err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return f.Name()
}

// baseConfig is a configuration without credentials.
func (c *Cluster) baseConfig() *rest.Config {
	cfg := &rest.Config{
		Host: "https://" + c.api.String(), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.pki.pem},
	}
	if c.opt.Host != nil {
		cfg.Dial = c.opt.Host.Dial
	}
	return cfg
}

func (c *Cluster) clientConfig(name string, subject pkix.Name) (*rest.Config, error) {
	p, err := c.pki.issue(name, subject)
	if err != nil {
		return nil, err
	}
	cfg := c.baseConfig()
	cfg.CertData, cfg.KeyData = p.cert, p.key
	return cfg, nil
}

func writeKubeconfig(file string, cfg *rest.Config) error {
	k := clientcmdapi.NewConfig()
	k.Clusters["test"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	k.AuthInfos["test"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, Token: cfg.BearerToken,
	}
	k.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	k.CurrentContext = "test"
	return clientcmd.WriteToFile(*k, file)
}
