package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"time"

	"corax/control"
	"corax/proxy"
)

// maxProbe is how long an agent may take to dial a node. It leaves time to answer
// within maxAnswer.
const maxProbe = 25 * time.Second

// ProxyProbe is what came of dialling a port of a node as a front does: GET
// /v1/proxy/probe. Its JSON keys are stable.
type ProxyProbe struct {
	Front   bool         `json:"front"`   // this node is a front; else nothing was dialled
	Node    string       `json:"node"`    // the node that was meant; empty: none is called so
	Gateway string       `json:"gateway"` // of the node
	Own     bool         `json:"own"`     // it is of this node's domain, and dialled plainly
	Via     []netip.Addr `json:"via"`     // overlay addresses of the gateway nodes that serve it
	Code    string       `json:"code"`    // why it was not reached, as counters call it; none: it was
	Error   string       `json:"error"`   // likewise, in words
	Millis  float64      `json:"millis"`  // that the dial took
	// TLS is whom the port named in its certificate, and TLSError why there is none,
	// or why it is not verified.
	TLS      string `json:"tls"`
	TLSError string `json:"tlsError"`
}

// complete makes every list non-nil, so that readers find [], not null.
func (p ProxyProbe) complete() ProxyProbe {
	p.Via = orEmpty(p.Via)
	return p
}

// probe dials a port of a node, which is given by its name or Hostname address, and
// begins TLS there.
func (a *agent) probe(ctx context.Context, name string, port uint16) ProxyProbe {
	plan := a.view.Load().proxy
	p := ProxyProbe{Front: plan.Front, Code: proxy.CodeUnknownNode.String()}
	n, ok := a.proxied(plan, name)
	if !ok {
		p.Error = "no node of that name takes part in proxy mode"
		return p
	}
	p.Node, p.Gateway, p.Own, p.Via = n.Name, n.Gateway, n.Own, n.Via
	if !plan.Front {
		p.Code, p.Error = proxy.CodeCaller.String(), "this node is no front of the proxy"
		return p
	}
	began := time.Now()
	conn, err := a.proxy.channel.Dial(ctx, proxy.Target{Node: n.Name, Port: port})
	p.Millis = float64(time.Since(began).Microseconds()) / 1000
	p.Code = proxy.CodeOf(err).String()
	if err != nil {
		p.Error = err.Error()
		return p
	}
	defer conn.Close()
	t := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: name,
		// Nothing is told to this end: it is looked at, and verified below.
		InsecureSkipVerify: true,
	})
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		p.TLSError = "no TLS: " + err.Error()
		return p
	}
	chain := t.ConnectionState().PeerCertificates
	p.TLS = chain[0].Subject.CommonName
	if err := a.verifyNode(chain, n.Name, name); err != nil {
		p.TLSError = err.Error()
	}
	return p
}

// proxied returns the node of a name.
func (a *agent) proxied(plan control.Proxy, name string) (control.ProxyNode, bool) {
	called := func(name string) (control.ProxyNode, bool) {
		for _, n := range plan.Nodes {
			if strings.EqualFold(n.Name, name) {
				return n, true
			}
		}
		return control.ProxyNode{}, false
	}
	if n, ok := called(name); ok || a.proxy.names == nil {
		return n, ok
	}
	node, ok := a.proxy.names(name)
	if !ok {
		return control.ProxyNode{}, false
	}
	return called(node)
}

// verifyNode verifies a certificate as a front does where TLS ends there.
func (a *agent) verifyNode(chain []*x509.Certificate, names ...string) error {
	var cas *x509.CertPool
	if a.proxy.nodeCAs != nil {
		cas = a.proxy.nodeCAs()
	}
	if cas == nil {
		return errors.New("no authority is known that could verify it")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: cas, Intermediates: between}); err != nil {
		return err
	}
	var err error
	for _, n := range names {
		if err = chain[0].VerifyHostname(n); err == nil {
			return nil
		}
	}
	return err
}
