package front

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"corax/proxy"
	"corax/proxy/splice"
)

// Config says what a Front works with. Dialer, Live and Counters are required. The
// functions may be called by several goroutines at once and must not block for long.
type Config struct {
	Log    *slog.Logger // nil: nothing is logged
	Dialer proxy.Dialer
	// Live has the open streams, and bounds them.
	Live     *proxy.Live
	Counters *proxy.Counters
	// Pool joins streams; nil: one of its own.
	Pool *splice.Pool
	// Via says over which gateway node the dialer reached a node, for status and
	// audit lines; nil, or empty: nothing is said.
	Via func(net.Conn) string
	// Names returns the node with that Hostname address, which it gets in lower
	// case and without a dot at its end. The names of nodes themselves are in the
	// plan. nil: there are no others.
	Names func(host string) (node string, ok bool)
	// Auth knows callers and their rights. Without it the plain port listens on
	// loopback only and asks nobody, and no TLS ends here.
	Auth Auth
	// Certificate is shown where TLS ends here; nil: no TLS ends here.
	Certificate func() (*tls.Certificate, error)
	// ServiceNames are the server names that are ours, such as those of the
	// Service in front of us. They win over nodes.
	ServiceNames []string
	// Unnamed ends TLS here, too, when the caller sends no server name.
	Unnamed bool
	// ClientCAs verify the certificates of callers where TLS ends here; nil: none
	// are asked for. They may be another pool each time.
	ClientCAs func() *x509.CertPool
	// NodeCAs verify the certificates of nodes on ports that speak TLS: the kubelet
	// CA. nil: such ports are reached by passing through only.
	NodeCAs func() *x509.CertPool
	// Hostname returns the Hostname address of a node, which its certificate must
	// hold unless it holds the node's name; nil, or empty: the name only.
	Hostname func(node string) string
	// Connect is for the CONNECT front on TCP; its zero value keeps that closed.
	Connect ConnectTLS
	// MaxPending bounds the connections of which it is not known yet what they
	// want; zero means 1024. One address has at most half of them.
	MaxPending int
}

// ConnectTLS is the mTLS of the CONNECT front.
type ConnectTLS struct {
	// Certificate is shown; nil: no CONNECT on TCP.
	Certificate func() (*tls.Certificate, error)
	// ClientCAs verify callers; it is required with Certificate.
	ClientCAs func() *x509.CertPool
	// Names are the common names or DNS names of which a caller must have one;
	// empty: whoever ClientCAs verify may come.
	Names []string
	// Cluster, over TCP and on the socket, are addresses that this host dials itself,
	// whoever else may have them: those of Services and Pods, which an API server with
	// an egress selector asks for webhooks and aggregated APIs. Empty: none.
	Cluster []netip.Prefix
}

func (c *Config) validate() error {
	var errs []error
	if c.Dialer == nil || c.Live == nil || c.Counters == nil {
		errs = append(errs, errors.New("front: a dialer, a registry and counters are needed"))
	}
	if c.Connect.Certificate != nil && c.Connect.ClientCAs == nil {
		errs = append(errs, errors.New("front: CONNECT on TCP needs a CA for its callers"))
	}
	if c.MaxPending < 0 {
		errs = append(errs, errors.New("front: the number of pending connections is negative"))
	}
	return errors.Join(errs...)
}

// terminates reports whether TLS ends here for server names that are ours.
func (c *Config) terminates() bool { return c.Certificate != nil && c.Auth != nil }
