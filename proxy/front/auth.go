package front

import (
	"context"
	"crypto/x509"
	"errors"
)

// Auth says who callers are and what they may, as the API server sees it. Its
// answers are kept for a short time, so it need not keep them itself. Its methods
// may be called by several goroutines at once, with contexts that end soon.
type Auth interface {
	// Token returns whose a bearer token is. [ErrUnauthenticated], wrapped or not,
	// says that the token is not good; any other error that it is not known.
	Token(ctx context.Context, token string) (User, error)
	// Allowed reports whether the user may do it.
	Allowed(ctx context.Context, u User, a Access) (bool, error)
}

// ErrUnauthenticated says that credentials are not good, or not good any more.
var ErrUnauthenticated = errors.New("not authenticated")

// User is who asks, in the words of Kubernetes.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Access is what is asked for: a verb on a subresource of a node.
type Access struct {
	Verb        string // get, create, update, patch or delete
	Subresource string // metrics or proxy
	Node        string
}

// certificateUser returns whom a verified client certificate names, as the API
// server reads it: the common name, and organizations as groups.
func certificateUser(c *x509.Certificate) (User, bool) {
	if c.Subject.CommonName == "" {
		return User{}, false
	}
	groups := append([]string{}, c.Subject.Organization...)
	return User{Name: c.Subject.CommonName, Groups: append(groups, "system:authenticated")}, true
}
