package approval_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"corax/control/controller/approval"
)

const hub = "system:serviceaccount:kube-system:corax-hub"

var names = []string{"svc", "svc.kube-system"}

// request returns one that is approved, after change.
func request(t *testing.T, change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: approval.CommonName, Organization: []string{approval.Organization}},
		DNSNames: names,
	}
	r := &certificatesv1.CertificateSigningRequest{}
	r.Spec = certificatesv1.CertificateSigningRequestSpec{
		Username: hub, SignerName: certificatesv1.KubeletServingSignerName,
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth},
	}
	change(q, r)
	if r.Spec.Request != nil {
		return r
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, q, key)
	if err != nil {
		t.Fatal(err)
	}
	r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return r
}

func TestJudge(t *testing.T) {
	type q = x509.CertificateRequest
	type r = certificatesv1.CertificateSigningRequest
	condition := func(c certificatesv1.RequestConditionType) func(*q, *r) {
		return func(_ *q, r *r) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: c})
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*q, *r)
		want   approval.Verdict
	}{
		{"a front's", func(*q, *r) {}, approval.Approve},
		{"one name", func(q *q, _ *r) { q.DNSNames = names[:1] }, approval.Approve},
		{"another user", func(_ *q, r *r) { r.Spec.Username = "system:serviceaccount:kube-system:corax-agent" }, approval.Ignore},
		{"another signer", func(_ *q, r *r) { r.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName }, approval.Ignore},
		{"approved", condition(certificatesv1.CertificateApproved), approval.Ignore},
		{"denied", condition(certificatesv1.CertificateDenied), approval.Ignore},
		{"failed", condition(certificatesv1.CertificateFailed), approval.Ignore},
		{"a node's name", func(q *q, _ *r) { q.DNSNames = append(q.DNSNames[:1:1], "edge-1") }, approval.Deny},
		{"the API server's name", func(q *q, _ *r) { q.DNSNames = []string{"kubernetes.default.svc"} }, approval.Deny},
		{"no name", func(q *q, _ *r) { q.DNSNames = nil }, approval.Deny},
		{"an address", func(q *q, _ *r) { q.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, approval.Deny},
		{"an e-mail address", func(q *q, _ *r) { q.EmailAddresses = []string{"a@example.org"} }, approval.Deny},
		{"a URI", func(q *q, _ *r) { q.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, approval.Deny},
		{"a node as subject", func(q *q, _ *r) { q.Subject.CommonName = "system:node:edge-1" }, approval.Deny},
		{"masters", func(q *q, _ *r) { q.Subject.Organization = append(q.Subject.Organization, "system:masters") }, approval.Deny},
		{"another part of the subject", func(q *q, _ *r) { q.Subject.OrganizationalUnit = []string{"x"} }, approval.Deny},
		{"client usage", func(_ *q, r *r) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageClientAuth) }, approval.Deny},
		{"an extension", func(q *q, _ *r) {
			q.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}, approval.Deny},
		{"no request", func(_ *q, r *r) { r.Spec.Request = []byte("x") }, approval.Deny},
		{"an empty block", func(_ *q, r *r) {
			r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"})
		}, approval.Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, why := approval.Judge(request(t, tt.change), hub, names); got != tt.want {
				t.Errorf("%v (%s), want %v", got, why, tt.want)
			}
		})
	}
	two := request(t, func(*q, *r) {})
	two.Spec.Request = append(two.Spec.Request, two.Spec.Request...)
	if got, _ := approval.Judge(two, hub, names); got != approval.Deny {
		t.Errorf("two blocks: %v", got)
	}
}

// FuzzJudge checks that nothing but a front's request is approved, whatever bytes
// come as one.
func FuzzJudge(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &certificatesv1.CertificateSigningRequest{}
		r.Spec = certificatesv1.CertificateSigningRequestSpec{Username: hub, SignerName: certificatesv1.KubeletServingSignerName, Request: b}
		if v, _ := approval.Judge(r, hub, nil); v != approval.Deny {
			t.Errorf("%v without any name allowed", v)
		}
	})
}
