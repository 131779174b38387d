//go:build linux

package kube_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"corax/control"
	"corax/control/controller"
	"corax/control/kube"
	"corax/integration/kube/cluster"
)

// TestFront runs what a front of the proxy asks of the cluster, with the rights and
// policies that are shipped: a real API server, and the real signer.
func TestFront(t *testing.T) {
	c := cluster.Start(t, cluster.Options{Controllers: cluster.UsualControllers()})
	c.Apply(t, crd, netAdmin)
	c.AddNode(t, cluster.Node{Name: "edge-1", Labels: map[string]string{"openyurt.io/is-edge-worker": "true"}})
	addHostname(t, c, "edge-1", "Edge-1.Example")
	c.AddNode(t, cluster.Node{Name: "cloud-1", IPs: []netip.Addr{netip.MustParseAddr("10.90.0.11")}})
	c.Label(t, "cloud-1", map[string]string{"node-role.kubernetes.io/control-plane": "true"})
	runController(t, c, func(cfg *controller.Config) {
		cfg.Kubeconfig, cfg.ExposeCloud = c.Kubeconfig(t, c.AccountConfig(t, "corax-controller")), "PublicIP"
	})
	state := t.TempDir()
	client, err := kube.New(kube.Config{
		Kubeconfig: c.Kubeconfig(t, c.AgentConfig(t, "cloud-1", "corax-hub")), Node: "cloud-1", StateDir: state,
		HostsFile: filepath.Join(state, "hosts"), Update: func(control.Snapshot) {}, Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	client.Front(true)

	t.Run("names", func(t *testing.T) {
		cluster.Eventually(t, time.Minute, "a Hostname address is known", func(context.Context) error {
			if node, known, listed := client.Node("edge-1.example"); node != "edge-1" || !known || !listed {
				return fmt.Errorf("%q, %v, %v; %q", node, known, listed, client.State().Problems())
			}
			return nil
		})
		if h := client.Hostname("edge-1"); h != "edge-1.example" {
			t.Errorf("Hostname %q", h)
		}
	})
	t.Run("certificate", func(t *testing.T) { frontCertificate(t, client, state) })
	t.Run("client authorities", func(t *testing.T) {
		cluster.Eventually(t, time.Minute, "the API server's client CA is known", func(context.Context) error {
			if client.ClientCAs() == nil {
				return errors.New("not yet")
			}
			return nil
		})
	})
	t.Run("reviews", func(t *testing.T) { frontReviews(t, c, client) })
	t.Run("hosts", func(t *testing.T) {
		cluster.Eventually(t, time.Minute, "the hosts file of the control plane", func(context.Context) error {
			b, err := os.ReadFile(filepath.Join(state, "hosts"))
			if err == nil && (!strings.Contains(string(b), "\tedge-1\n") || !strings.Contains(string(b), "localhost")) {
				err = fmt.Errorf("it holds %q", b)
			}
			return errors.Join(err, errors.Join(asErrors(client.State().Problems())...))
		})
	})
	t.Run("survey", func(t *testing.T) { frontSurvey(t, c) })
	t.Run("policies", func(t *testing.T) { frontPolicies(t, c) })
}

// frontSurvey looks the node up as the doctor does.
func frontSurvey(t *testing.T, c *cluster.Cluster) {
	admin := c.Kubeconfig(t, c.Config())
	look := func(kubeconfig, name string) (kube.Survey, error) {
		return kube.NewSurvey(t.Context(), kube.Config{Kubeconfig: kubeconfig}, name)
	}
	cluster.Eventually(t, time.Minute, "the objects lead to the node", func(context.Context) error {
		s, err := look(admin, "EDGE-1.example")
		if err != nil || s.Node != "edge-1" || s.Gateway != "solo-edge-1" || len(s.Active) != 1 || len(s.Fronts) != 1 || s.Switch != "true" ||
			!s.Service.IsValid() || s.Leads != s.Service || len(s.Ports) != 1 || s.Ports[0] != 10250 || s.Ready != 1 || len(s.Unread) > 0 {
			return fmt.Errorf("%+v %w", s, err)
		}
		return nil
	})
	if s, err := look(admin, "nobody"); err != nil || s.Node != "" {
		t.Errorf("nobody: %+v, %v", s, err)
	}
	s, err := look(c.Kubeconfig(t, c.AgentConfig(t, "cloud-1", "corax-hub")), "edge-1")
	if err != nil || s.Node != "edge-1" || len(s.Unread) != 2 {
		t.Errorf("with the rights of a hub: %+v, %v", s, err)
	}
	if _, err := look(c.Kubeconfig(t, c.AgentConfig(t, "edge-1", "corax-agent")), "edge-1"); err == nil {
		t.Error("with the rights of an edge there is no error")
	}
}

func asErrors(list []string) (errs []error) {
	for _, s := range list {
		errs = append(errs, errors.New(s))
	}
	return errs
}

func addHostname(t *testing.T, c *cluster.Cluster, node, host string) {
	t.Helper()
	patch := fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"192.168.50.10"},{"type":"Hostname","address":%q}]}}`, host)
	if _, err := c.Client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// frontCertificate waits until the certificate is there, and verifies it as a
// scraper does that has the cluster's CA.
func frontCertificate(t *testing.T, client *kube.Client, state string) {
	var cert *tls.Certificate
	cluster.Eventually(t, time.Minute, "the controller approved and the cluster signed", func(context.Context) (err error) {
		cert, err = client.Certificate()
		return err
	})
	pool, err := client.ClusterCA()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kube.ServingNames("kube-system", "") {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if client.State().ServingUntil.IsZero() {
		t.Error("the state has no certificate")
	}
	cluster.Eventually(t, time.Minute, "it is kept", func(context.Context) error {
		st, err := os.Stat(filepath.Join(state, kube.ServingFile))
		if err == nil && st.Mode().Perm() != 0o600 {
			return fmt.Errorf("mode %v", st.Mode())
		}
		return err
	})
}

// frontReviews asks who somebody is and what he may.
func frontReviews(t *testing.T, c *cluster.Cluster, client *kube.Client) {
	token := c.AccountConfig(t, "default/scraper").BearerToken
	u, err := client.User(t.Context(), token, nil)
	if err != nil || u.Name != "system:serviceaccount:default:scraper" {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, bad := range []struct {
		token     string
		audiences []string
	}{{"nonsense", nil}, {token + "x", nil}, {token, []string{"somebody-else"}}} {
		if _, err := client.User(t.Context(), bad.token, bad.audiences); !errors.Is(err, kube.ErrUnauthenticated) {
			t.Errorf("%v: %v", bad.audiences, err)
		}
	}
	q := kube.Question{Verb: "get", Subresource: "metrics", Node: "edge-1"}
	if ok, _, err := client.May(t.Context(), u, q); ok || err != nil {
		t.Errorf("without a role: %v, %v", ok, err)
	}
	kubectl(t, c, "create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics")
	kubectl(t, c, "create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper")
	cluster.Eventually(t, time.Minute, "the role counts", func(ctx context.Context) error {
		if ok, why, err := client.May(ctx, u, q); !ok || err != nil {
			return fmt.Errorf("%v %q %w", ok, why, err)
		}
		return nil
	})
	q.Subresource = "proxy"
	if ok, _, err := client.May(t.Context(), u, q); ok || err != nil {
		t.Errorf("another subresource: %v, %v", ok, err)
	}
}

func kubectl(t *testing.T, c *cluster.Cluster, args ...string) {
	t.Helper()
	if out, err := c.Kubectl(t, nil, args...); err != nil {
		t.Fatalf("%v: %v %s", args, err, out)
	}
}

// frontPolicies tries what a front, and the controller, may not do with
// certificates.
func frontPolicies(t *testing.T, c *cluster.Cluster) {
	ask := func(u user, name, signer string, usages ...certificatesv1.KeyUsage) error {
		_, err := u.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       certificatesv1.CertificateSigningRequestSpec{Request: pemRequest(t), SignerName: signer, Usages: usages},
		}, metav1.CreateOptions{})
		return err
	}
	const byFront, byApproval = "ValidatingAdmissionPolicy 'corax-front-own-request'", "ValidatingAdmissionPolicy 'corax-controller-approval'"
	front := userOf(t, c.AgentConfig(t, "cloud-1", "corax-hub"))
	serving := certificatesv1.KubeletServingSignerName
	for name, err := range map[string]error{
		"a client certificate": ask(front, "corax-proxy-a", certificatesv1.KubeAPIServerClientSignerName, certificatesv1.UsageClientAuth),
		"another name":         ask(front, "x", serving, certificatesv1.UsageServerAuth),
		"another usage":        ask(front, "corax-proxy-b", serving, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth),
		"a token of no node":   ask(userOf(t, c.AccountConfig(t, "corax-hub")), "corax-proxy-c", serving, certificatesv1.UsageServerAuth),
	} {
		if err := refused(err, byFront); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := refused(ask(userOf(t, c.AgentConfig(t, "edge-1", "corax-agent")), "corax-proxy-d", serving, certificatesv1.UsageServerAuth), byRBAC); err != nil {
		t.Errorf("an agent of the edge: %v", err)
	}
	// A request for a node's name by a front: the controller denies it.
	if err := ask(front, "corax-proxy-evil", serving, certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment); err != nil {
		t.Fatal(err)
	}
	requests := c.Client.CertificatesV1().CertificateSigningRequests()
	cluster.Eventually(t, time.Minute, "a node's name is denied", func(ctx context.Context) error {
		r, err := requests.Get(ctx, "corax-proxy-evil", metav1.GetOptions{})
		if err != nil || len(r.Status.Conditions) != 1 || r.Status.Conditions[0].Type != certificatesv1.CertificateDenied {
			return fmt.Errorf("%+v %w", r.Status.Conditions, err)
		}
		return nil
	})
	// A request of somebody else: the controller may not approve it, if it wanted to.
	if err := ask(userOf(t, c.Config()), "kubelet", serving, certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment); err != nil {
		t.Fatal(err)
	}
	r, err := requests.Get(t.Context(), "kubelet", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "x"})
	_, err = userOf(t, c.AccountConfig(t, "corax-controller")).CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), "kubelet", r, metav1.UpdateOptions{})
	if err := refused(err, byApproval); err != nil || apierrors.IsConflict(err) {
		t.Errorf("the controller and a kubelet's request: %v", err)
	}
}

// pemRequest is what a kubelet asks for.
func pemRequest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:edge-1", Organization: []string{"system:nodes"}}, DNSNames: []string{"edge-1"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
