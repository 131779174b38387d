package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/internal/statefile"
)

const (
	// ServingFile is the name, in Config.StateDir, of the front's certificate and
	// its key.
	ServingFile = "proxy-serving.pem"
	// ServingSubject is the common name of the certificate. The signer wants one
	// that begins so; clients look at the names of the Service.
	ServingSubject = "system:node:x-raven-proxy-internal-svc"
	// RequestPrefix begins the names of our certificate requests.
	RequestPrefix = "corax-proxy-"
	maxServing    = 64 << 10

	// servingLife is asked for; signers give what they like.
	servingLife = 90 * 24 * time.Hour
	// A request that failed is tried again after retryFirst, then more and more
	// rarely.
	retryFirst, retryMost = 10 * time.Second, 10 * time.Minute
	// An approver answers at once, a person later.
	pollFirst, pollMost = 500 * time.Millisecond, 30 * time.Second
	// approvalPatience is how long nobody is told of a request that is not approved yet.
	approvalPatience = 30 * time.Second
)

// defaultClusterDomain is the DNS domain of most clusters.
const defaultClusterDomain = "cluster.local"

// ServingNames returns the DNS names that the certificate of the proxy's Service
// has, and no others. An empty domain is that of most clusters, cluster.local.
func ServingNames(namespace, domain string) []string {
	of := proxyService + "." + namespace
	return []string{proxyService, of, of + ".svc", of + ".svc." + cmp.Or(domain, defaultClusterDomain)}
}

// requester is what serving needs of the API server.
type requester interface {
	createRequest(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error
	readRequest(ctx context.Context, name string) (*certificatesv1.CertificateSigningRequest, error)
}

// serving keeps the certificate of a front. run owns it; certificate may be called
// from any goroutine.
type serving struct {
	api    requester
	names  []string
	file   statefile.File // without a Dir nothing is kept
	link   *link
	log    *slog.Logger
	random func() float64

	mu   sync.Mutex
	cert *tls.Certificate // nil: none
	why  error            // why there is none, or no newer one
}

func newServing(cfg Config, api requester, l *link, log *slog.Logger) *serving {
	return &serving{
		api: api, names: ServingNames(cfg.Namespace, cfg.ClusterDomain), link: l, log: log, random: rand.Float64,
		file: statefile.File{Dir: cfg.StateDir, Name: ServingFile, Max: maxServing},
		why:  errors.New("this node is no front of the proxy"),
	}
}

// certificate returns what is to be shown to clients.
func (s *serving) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert == nil {
		return nil, fmt.Errorf("kube: no serving certificate: %w", s.why)
	}
	if !time.Now().Before(s.cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("kube: the serving certificate lapsed: %w", s.why)
	}
	return s.cert, nil
}

// run has a certificate until ctx is done: the one that was kept, and a new one
// after two thirds of its life.
func (s *serving) run(ctx context.Context) error {
	s.recall()
	retry := retryFirst
	for {
		if c := s.current(); c != nil {
			if !pause(ctx, time.Until(renewAt(c.Leaf, s.random()))) {
				return nil
			}
		}
		c, err := s.request(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			s.use(c)
			retry = retryFirst
			continue
		}
		s.log.Warn("no certificate for the proxy's Service", "err", err, "again", retry)
		s.fail(err)
		if !pause(ctx, retry/2+time.Duration(s.random()*float64(retry))) {
			return nil
		}
		retry = min(2*retry, retryMost)
	}
}

func (s *serving) current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert
}

// recall takes the certificate that a former agent had, while it is good.
func (s *serving) recall() {
	s.mu.Lock()
	s.why = errors.New("it was not requested yet") // no problem for a while
	s.mu.Unlock()
	if s.file.Dir == "" {
		return
	}
	s.file.Sweep()
	b, err := s.file.Read()
	if err != nil {
		return
	}
	c, err := parseServing(b, s.names, time.Now())
	if err != nil {
		s.log.Info("the certificate that was kept is not used", "err", err)
		return
	}
	s.show(c)
}

// use shows a new certificate from now on, and keeps it.
func (s *serving) use(c *tls.Certificate) {
	s.log.Info("a certificate for the proxy's Service", "until", c.Leaf.NotAfter)
	s.show(c)
	if s.file.Dir == "" {
		return
	}
	b, err := formatServing(c)
	if err == nil {
		err = s.file.Write(b)
	}
	if err != nil {
		s.log.Warn("the certificate cannot be kept over a restart", "err", err)
	}
}

func (s *serving) show(c *tls.Certificate) {
	s.mu.Lock()
	s.cert, s.why = c, nil
	s.mu.Unlock()
	s.link.served(c.Leaf.NotAfter, nil)
}

// fail notes why there is no certificate, or no newer one.
func (s *serving) fail(err error) {
	s.mu.Lock()
	s.why = err
	until := time.Time{}
	if s.cert != nil && time.Now().Before(s.cert.Leaf.NotAfter) {
		until = s.cert.Leaf.NotAfter
	}
	s.mu.Unlock()
	s.link.served(until, err)
}

// request asks for a certificate and waits for it.
func (s *serving) request(ctx context.Context) (*tls.Certificate, error) {
	key, pem, err := newRequest(s.names)
	if err != nil {
		return nil, err
	}
	name, err := requestName()
	if err != nil {
		return nil, err
	}
	seconds := int32(servingLife / time.Second)
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem, SignerName: certificatesv1.KubeletServingSignerName, ExpirationSeconds: &seconds,
			// What an approver of kubelets' certificates wants to see, to the letter.
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth},
		},
	}
	if err := s.api.createRequest(ctx, r); err != nil {
		return nil, fmt.Errorf("request it: %w", err)
	}
	chain, err := s.await(ctx, name)
	if err != nil {
		return nil, err
	}
	return certificateOf(chain, key, s.names, time.Now())
}

// await waits until a request is answered.
func (s *serving) await(ctx context.Context, name string) ([]byte, error) {
	began := time.Now()
	for wait := pollFirst; ; wait = min(wait*3/2, pollMost) {
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
		r, err := s.api.readRequest(ctx, name)
		switch {
		case apierrors.IsNotFound(err):
			return nil, fmt.Errorf("request %s was deleted before it was answered", name)
		case err != nil:
			s.fail(fmt.Errorf("read request %s: %w", name, err))
		case len(r.Status.Certificate) > 0:
			return r.Status.Certificate, nil
		default:
			approved, err := verdict(r)
			if err != nil {
				return nil, err
			}
			if time.Since(began) >= approvalPatience {
				s.fail(waiting(name, approved))
			}
		}
	}
}

// verdict reads the conditions of a request.
func verdict(r *certificatesv1.CertificateSigningRequest) (approved bool, err error) {
	for _, c := range r.Status.Conditions {
		if c.Status == corev1.ConditionFalse {
			continue
		}
		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			return false, fmt.Errorf("request %s: %s: %s", r.Name, strings.ToLower(string(c.Type)), clip(c.Message))
		case certificatesv1.CertificateApproved:
			approved = true
		}
	}
	return approved, nil
}

// waiting says whom a request waits for.
func waiting(name string, approved bool) error {
	if approved {
		return fmt.Errorf("request %s is approved, and nobody signs it: this cluster has no signer for %s", name, certificatesv1.KubeletServingSignerName)
	}
	return fmt.Errorf("request %s waits for its approval by the controller, or by: kubectl certificate approve %s", name, name)
}

func (s *server) createRequest(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.requests.Post().Resource("certificatesigningrequests").Body(r).MaxRetries(0).Do(ctx).Error()
}

func (s *server) readRequest(ctx context.Context, name string) (*certificatesv1.CertificateSigningRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	r := &certificatesv1.CertificateSigningRequest{}
	err := s.requests.Get().Resource("certificatesigningrequests").Name(name).MaxRetries(0).Do(ctx).Into(r)
	return r, err
}
