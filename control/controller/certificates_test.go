package controller

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/controller/approval"
)

func TestCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const hub = "system:serviceaccount:kube-system:corax-hub"
	request := func(name, user, dns string) client.Object {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: approval.CommonName, Organization: []string{approval.Organization}},
			DNSNames: []string{dns},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Username: user, SignerName: certificatesv1.KubeletServingSignerName,
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			},
		}
	}
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&certificatesv1.CertificateSigningRequest{}).WithObjects(
		request("good", hub, "x-raven-proxy-internal-svc.kube-system.svc"),
		request("bad", hub, "edge-1"),
		request("kubelet", "system:node:edge-1", "edge-1"),
	).Build()
	r := newCertificates(c, cfg)
	for name, want := range map[string]certificatesv1.RequestConditionType{
		"good": certificatesv1.CertificateApproved, "bad": certificatesv1.CertificateDenied, "kubelet": "", "gone": "",
	} {
		for range 2 { // the second time there is nothing to decide
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: name}}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		q := &certificatesv1.CertificateSigningRequest{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, q); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		var got []certificatesv1.RequestConditionType
		for _, c := range q.Status.Conditions {
			got = append(got, c.Type)
		}
		if len(got) > 1 || len(got) == 1 && got[0] != want || len(got) == 0 && want != "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
