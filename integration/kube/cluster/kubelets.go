//go:build linux

package cluster

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"strings"

	certificates "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// aggregator is the name by which the API server speaks to aggregated ones.
const aggregator = "front-proxy-client"

// forKubelets makes the API server's client certificates and returns the
// arguments that say how it speaks to kubelets and aggregated API servers.
func (c *Cluster) forKubelets() ([]string, error) {
	kubelet, err := c.pki.issue("kubelet-client", pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}})
	if err != nil {
		return nil, err
	}
	proxy, err := c.pki.issue(aggregator, pkix.Name{CommonName: aggregator})
	if err != nil {
		return nil, err
	}
	return []string{
		"--kubelet-preferred-address-types=Hostname,InternalIP,ExternalIP",
		"--kubelet-certificate-authority=" + c.CAFile(),
		"--kubelet-client-certificate=" + kubelet.certFile, "--kubelet-client-key=" + kubelet.keyFile,
		"--proxy-client-cert-file=" + proxy.certFile, "--proxy-client-key-file=" + proxy.keyFile,
		"--requestheader-client-ca-file=" + c.CAFile(), "--requestheader-allowed-names=" + aggregator,
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true",
	}, nil
}

// CAFile returns the path of the certificate of the cluster's authority.
func (c *Cluster) CAFile() string { return c.pki.file("ca.crt") }

// Issue makes a certificate for a client and returns the paths of it and of its
// key.
func (c *Cluster) Issue(t T, user string, groups ...string) (certFile, keyFile string) {
	t.Helper()
	p, err := c.pki.issue("issued-"+strings.ReplaceAll(user, "/", "_"), pkix.Name{CommonName: user, Organization: groups})
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return p.certFile, p.keyFile
}

// IssueServing makes a certificate for a server on some addresses and returns the
// paths of it and of its key.
func (c *Cluster) IssueServing(t T, name string, addrs ...netip.Addr) (certFile, keyFile string) {
	t.Helper()
	p, err := c.pki.issue("serving-"+name, pkix.Name{CommonName: name}, addrs...)
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return p.certFile, p.keyFile
}

// ApproveServing approves what a node's kubelet asks of the signer of serving
// certificates: nothing in a real cluster does that by itself either.
func (c *Cluster) ApproveServing(ctx context.Context, node string) error {
	requests := c.Client.CertificatesV1().CertificateSigningRequests()
	list, err := requests.List(ctx, metav1.ListOptions{FieldSelector: "spec.signerName=" + certificates.KubeletServingSignerName})
	if err != nil {
		return err
	}
	for i := range list.Items {
		r := &list.Items[i]
		if r.Spec.Username != "system:node:"+node || len(r.Status.Conditions) > 0 {
			continue
		}
		r.Status.Conditions = []certificates.CertificateSigningRequestCondition{{
			Type: certificates.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "the test started this kubelet",
		}}
		if _, err := requests.UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("approve %s: %w", r.Name, err)
		}
	}
	return nil
}
