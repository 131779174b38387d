package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// reviewTimeout bounds one question to the API server: somebody waits for it.
const reviewTimeout = 10 * time.Second

// ErrUnauthenticated says that the API server answered, and that a token is not
// that of anybody, or not meant for us.
var ErrUnauthenticated = errors.New("the token is not valid")

// User is who a token or a certificate names.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Question is what a User wants to do with a node.
type Question struct {
	Verb        string // as of Kubernetes: get, create, ...
	Subresource string // of the node: metrics, proxy, ...
	Node        string
}

// User asks the API server whose bearer token this is (TokenReview). With
// audiences the token must be meant for one of them, without any for the API
// server itself. The error of a token that is refused is [ErrUnauthenticated]; any
// other says that nothing is known of it.
func (c *Client) User(ctx context.Context, token string, audiences []string) (User, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	in := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}
	out := &authenticationv1.TokenReview{}
	err := c.api.tokens.Post().Resource("tokenreviews").Body(in).MaxRetries(0).Do(ctx).Into(out)
	c.link.count("kube_token_reviews_total", reason(err))
	if err != nil {
		return User{}, fmt.Errorf("kube: review a token: %w", err)
	}
	return userOf(&out.Status, audiences)
}

// userOf reads the answer to a TokenReview.
func userOf(s *authenticationv1.TokenReviewStatus, audiences []string) (User, error) {
	if !s.Authenticated || s.User.Username == "" {
		return User{}, ErrUnauthenticated
	}
	// An authenticator that knows nothing of audiences answers with none.
	meant := func(a string) bool { return slices.Contains(s.Audiences, a) }
	if len(audiences) > 0 && !slices.ContainsFunc(audiences, meant) {
		return User{}, ErrUnauthenticated
	}
	u := User{Name: s.User.Username, UID: s.User.UID, Groups: s.User.Groups}
	for k, v := range s.User.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[k] = v
	}
	return u, nil
}

// May asks the API server whether u may do that (SubjectAccessReview), and why
// not. An error says that it could not be asked.
func (c *Client) May(ctx context.Context, u User, q Question) (ok bool, why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	in := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: u.Name, UID: u.UID, Groups: u.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: q.Verb, Version: "v1", Resource: "nodes", Subresource: q.Subresource, Name: q.Node,
		},
	}}
	for k, v := range u.Extra {
		if in.Spec.Extra == nil {
			in.Spec.Extra = map[string]authorizationv1.ExtraValue{}
		}
		in.Spec.Extra[k] = v
	}
	out := &authorizationv1.SubjectAccessReview{}
	err = c.api.access.Post().Resource("subjectaccessreviews").Body(in).MaxRetries(0).Do(ctx).Into(out)
	c.link.count("kube_access_reviews_total", reason(err))
	if err != nil {
		return false, "", fmt.Errorf("kube: review access: %w", err)
	}
	return out.Status.Allowed && !out.Status.Denied, clip(out.Status.Reason), nil
}
