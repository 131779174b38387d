package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// signer is an API server that approves and signs at once, unless told otherwise.
type signer struct {
	t    *testing.T
	life time.Duration

	mu       sync.Mutex
	key      *ecdsa.PrivateKey
	requests map[string]*certificatesv1.CertificateSigningRequest
	made     int
	refuse   error                       // of creating a request
	deny     bool                        // by the controller
	hold     bool                        // nobody approves
	unsigned bool                        // approved, and not signed
	change   func(*x509.Certificate)     // before it is signed
	of       func(*ecdsa.PrivateKey) any // public key, when another
}

func newSigner(t *testing.T, life time.Duration) *signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t: t, life: life, key: key, requests: map[string]*certificatesv1.CertificateSigningRequest{}}
}

func (s *signer) set(f func(*signer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *signer) createRequest(_ context.Context, r *certificatesv1.CertificateSigningRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	if s.refuse != nil {
		return s.refuse
	}
	s.requests[r.Name] = r.DeepCopy()
	return nil
}

func (s *signer) readRequest(_ context.Context, name string) (*certificatesv1.CertificateSigningRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[name]
	if r == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "certificatesigningrequests"}, name)
	}
	condition := func(c certificatesv1.RequestConditionType) {
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: c, Status: corev1.ConditionTrue, Message: "says the test"}}
	}
	switch {
	case s.deny:
		condition(certificatesv1.CertificateDenied)
	case s.hold:
	case s.unsigned:
		condition(certificatesv1.CertificateApproved)
	default:
		condition(certificatesv1.CertificateApproved)
		r.Status.Certificate = s.sign(r)
	}
	return r.DeepCopy(), nil
}

func (s *signer) sign(r *certificatesv1.CertificateSigningRequest) []byte {
	block, _ := pem.Decode(r.Spec.Request)
	q, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(int64(s.made)), Subject: q.Subject, DNSNames: q.DNSNames,
		NotBefore: time.Now(), NotAfter: time.Now().Add(s.life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if s.change != nil {
		s.change(cert)
	}
	public := q.PublicKey
	if s.of != nil {
		public = s.of(s.key)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}}
	der, err := x509.CreateCertificate(rand.Reader, cert, root, public, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// asked returns how many requests were made.
func (s *signer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made
}

func newTestServing(t *testing.T, s *signer, dir string) *serving {
	t.Helper()
	cfg := Config{StateDir: dir}
	cfg.fill()
	v := newServing(cfg, s, newLink("", cfg.Log, nil), slog.New(slog.DiscardHandler))
	v.random = func() float64 { return 0 }
	return v
}

// runServing runs it until stop.
func runServing(t *testing.T, v *serving) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestServingRenews lives through several short certificates: each is replaced
// after two thirds of its life, and no request comes before.
func TestServingRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 15 * time.Minute
		s := newSigner(t, life)
		v := newTestServing(t, s, t.TempDir())
		if _, err := v.certificate(); err == nil {
			t.Error("a certificate before there was one")
		}
		stop := runServing(t, v)
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		for n := 1; n <= 4; n++ {
			c, err := v.certificate()
			if err != nil {
				t.Fatalf("certificate %d: %v", n, err)
			}
			if s.asked() != n || c.Leaf.SerialNumber.Int64() != int64(n) {
				t.Fatalf("%d requests, certificate %v, want %d", s.asked(), c.Leaf.SerialNumber, n)
			}
			if until := v.link.state().ServingUntil; !until.Equal(c.Leaf.NotAfter) {
				t.Errorf("the state says %v, not %v", until, c.Leaf.NotAfter)
			}
			time.Sleep(time.Until(c.Leaf.NotBefore.Add(life*2/3)) - time.Second)
			synctest.Wait()
			if s.asked() != n {
				t.Fatalf("renewed before two thirds: %d requests", s.asked())
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
	})
}

// TestServingFails lets requests fail: the old certificate counts until it lapses,
// and why there is no newer one is told.
func TestServingFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*signer)
		want string
		// once: there is one request, which waits; else they are repeated.
		once bool
	}{
		{"refused", func(s *signer) { s.refuse = errors.New("no rights") }, "no rights", false},
		{"denied", func(s *signer) { s.deny = true }, "denied: says the test", false},
		{"nobody approves", func(s *signer) { s.hold = true }, "kubectl certificate approve corax-proxy-", true},
		{"nobody signs", func(s *signer) { s.unsigned = true }, "no signer for kubernetes.io/kubelet-serving", true},
		{"another key", func(s *signer) { s.of = func(k *ecdsa.PrivateKey) any { return k.Public() } }, "of another key", false},
		{"names are missing", func(s *signer) { s.change = func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] } }, "has not all names", false},
		{"lapsed already", func(s *signer) { s.change = func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) } }, "lapsed", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSigner(t, time.Hour)
				v := newTestServing(t, s, "")
				stop := runServing(t, v)
				defer stop()
				time.Sleep(time.Second)
				synctest.Wait()
				s.set(tt.set)
				time.Sleep(50 * time.Minute) // two thirds are over
				synctest.Wait()
				if _, err := v.certificate(); err != nil {
					t.Errorf("the old one does not count any more: %v", err)
				}
				if st := v.link.state(); !strings.Contains(st.ServingErr, tt.want) || st.ServingUntil.IsZero() {
					t.Errorf("the state says %q, until %v", st.ServingErr, st.ServingUntil)
				}
				if s.asked() < 2 || s.asked() > 20 || tt.once != (s.asked() == 2) {
					t.Errorf("%d requests in ten minutes", s.asked())
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if _, err := v.certificate(); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("after its end: %v", err)
				}
				s.set(func(s *signer) {
					s.refuse, s.deny, s.hold, s.unsigned, s.change, s.of = nil, false, false, false, nil, nil
				})
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if _, err := v.certificate(); err != nil {
					t.Errorf("after it was mended: %v", err)
				}
				if st := v.link.state(); st.ServingErr != "" {
					t.Errorf("the state still says %q", st.ServingErr)
				}
			})
		})
	}
}

// TestServingIsKept starts again: the certificate on disk is used, and one that is
// no good is not.
func TestServingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newSigner(t, time.Hour)
		stop := runServing(t, newTestServing(t, s, dir))
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		again := func(want int) {
			t.Helper()
			v := newTestServing(t, s, dir)
			stop := runServing(t, v)
			defer stop()
			time.Sleep(time.Second)
			synctest.Wait()
			if _, err := v.certificate(); err != nil {
				t.Error(err)
			}
			if s.asked() != want {
				t.Errorf("%d requests, want %d", s.asked(), want)
			}
		}
		again(1)
		path := filepath.Join(dir, ServingFile)
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", st, err)
		}
		time.Sleep(2 * time.Hour) // it lapses
		again(2)
		if err := os.WriteFile(path, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		again(3)
	})
}

func TestRenewAt(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	for _, tt := range []struct {
		from, until time.Time
		random      float64
		want        time.Time
	}{
		{at(0), at(30), 0, at(20)},
		{at(0), at(60), 0.5, at(40).Add(-90 * time.Second)},
		{at(-5), at(55), 0, at(35)}, // signers date back
	} {
		if got := renewAt(&x509.Certificate{NotBefore: tt.from, NotAfter: tt.until}, tt.random); !got.Equal(tt.want) {
			t.Errorf("%v to %v: %v, want %v", tt.from, tt.until, got, tt.want)
		}
	}
}

func FuzzParseServing(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseServing(b, []string{"x"}, time.Unix(0, 0))
		if err == nil && (c.Leaf == nil || c.PrivateKey == nil || c.Leaf.VerifyHostname("x") != nil) {
			t.Errorf("%+v", c)
		}
	})
}

// TestServingNames: in a cluster of another DNS domain the certificate has that one.
func TestServingNames(t *testing.T) {
	for domain, want := range map[string]string{
		"":                "x-raven-proxy-internal-svc.kube-system.svc.cluster.local",
		"k8s.example.org": "x-raven-proxy-internal-svc.kube-system.svc.k8s.example.org",
	} {
		cfg := Config{Namespace: "kube-system", ClusterDomain: domain}
		s := newServing(cfg, nil, nil, nil)
		if len(s.names) != 4 || s.names[3] != want || s.names[2] != "x-raven-proxy-internal-svc.kube-system.svc" {
			t.Errorf("%q: %q", domain, s.names)
		}
	}
}
