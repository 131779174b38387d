package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"golang.org/x/sync/errgroup"
)

// Front says whether this node is a front of the proxy. While it is, the names of
// all nodes are read, and the certificate of the Service is kept. It never blocks;
// the newest counts.
func (c *Client) Front(on bool) { c.fronts.put(on) }

// Node returns the node that is called so: its name or its Hostname address, in
// whatever letters. known is false for a name that is no node's; listed is false
// while the nodes cannot be read, or [Client.Front] does not say that they are
// wanted.
func (c *Client) Node(name string) (node string, known, listed bool) { return c.names.node(name) }

// Hostname returns the Hostname address of a node; empty when it has none, or is
// not known.
func (c *Client) Hostname(node string) string { return c.names.hostname(node) }

// ClientCAs returns the authorities whose client certificates the API server
// believes, for callers that have one; nil while they are not known.
func (c *Client) ClientCAs() *x509.CertPool { return c.clientCAs.Load() }

// Certificate returns the certificate of the proxy's Service, or why there is
// none. It is renewed before it lapses, so it is to be asked for with each
// handshake.
func (c *Client) Certificate() (*tls.Certificate, error) { return c.serving.certificate() }

// runFront does what a front needs, whenever this node is one.
func (c *Client) runFront(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.fronts.wake:
		}
		for on, _ := c.fronts.get(); on; on, _ = c.fronts.get() {
			c.beFront(ctx)
			if ctx.Err() != nil {
				return nil
			}
		}
	}
}

// beFront is runFront until this node is no front any more.
func (c *Client) beFront(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return c.api.watchNodes(ctx, &c.names) })
	g.Go(func() error { return c.serving.run(ctx) })
	g.Go(func() error {
		store := &configStore{name: clientCAName, key: clientCAKey, set: c.setClientCAs}
		return c.api.watchConfig(ctx, store, func(err error) { c.log.Debug("the authorities of client certificates cannot be read", "err", err) })
	})
	for on := true; on && ctx.Err() == nil; on, _ = c.fronts.get() {
		select {
		case <-ctx.Done():
		case <-c.fronts.wake:
		}
	}
	cancel()
	_ = g.Wait() // neither fails
	c.names.forget()
	c.clientCAs.Store(nil)
	c.link.unfront()
}

// Where every API server says whose client certificates it believes.
const (
	clientCAName = "extension-apiserver-authentication"
	clientCAKey  = "client-ca-file"
)

func (c *Client) setClientCAs(text string) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		pool = nil
	}
	c.clientCAs.Store(pool)
}
