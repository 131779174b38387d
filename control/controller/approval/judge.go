package approval

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Subject of a front's certificate, as its agent asks for it.
const (
	CommonName   = "system:node:x-raven-proxy-internal-svc"
	Organization = "system:nodes"
)

// Verdict is what becomes of a request.
type Verdict int

// The verdicts.
const (
	// Ignore is for requests that are no front's, and those that were decided.
	Ignore Verdict = iota
	Approve
	Deny
)

// Judge decides a request. user is whom fronts ask as, and names are those that a
// front's certificate may have. The reason is for a person.
func Judge(r *certificatesv1.CertificateSigningRequest, user string, names []string) (v Verdict, reason string) {
	if r.Spec.Username != user || r.Spec.SignerName != certificatesv1.KubeletServingSignerName || decided(r) {
		return Ignore, ""
	}
	if err := check(r, names); err != nil {
		return Deny, err.Error()
	}
	return Approve, "a front of the proxy asks for a certificate of the proxy's Service"
}

func decided(r *certificatesv1.CertificateSigningRequest) bool {
	return len(r.Status.Certificate) > 0 || slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

func check(r *certificatesv1.CertificateSigningRequest, names []string) error {
	for _, u := range r.Spec.Usages {
		switch u {
		case certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment:
		default:
			return fmt.Errorf("usage %.50q is not for serving", u)
		}
	}
	block, rest := pem.Decode(r.Spec.Request)
	if block == nil || len(rest) > 0 {
		return errors.New("not one PEM block")
	}
	q, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return errors.New("the request cannot be read")
	}
	if err := q.CheckSignature(); err != nil {
		return errors.New("the request is not signed by its own key")
	}
	if q.Subject.CommonName != CommonName || !slices.Equal(q.Subject.Organization, []string{Organization}) || len(q.Subject.Names) != 2 {
		return fmt.Errorf("the subject %.200q is not a front's", q.Subject)
	}
	if len(q.IPAddresses) > 0 || len(q.EmailAddresses) > 0 || len(q.URIs) > 0 || len(q.DNSNames) == 0 {
		return errors.New("other names than DNS names, or none")
	}
	for _, n := range q.DNSNames {
		if !slices.Contains(names, n) {
			return fmt.Errorf("%.100q is not a name of the proxy's Service", n)
		}
	}
	// What the signer copies beside the names, if it copies anything.
	for _, e := range q.Extensions {
		if e.Id.String() != "2.5.29.17" {
			return fmt.Errorf("an extension %s", e.Id)
		}
	}
	return nil
}
