package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"corax/control"
)

func TestUserOf(t *testing.T) {
	status := func(authenticated bool, name string, audiences ...string) authenticationv1.TokenReviewStatus {
		return authenticationv1.TokenReviewStatus{Authenticated: authenticated, User: authenticationv1.UserInfo{Username: name}, Audiences: audiences}
	}
	for _, tt := range []struct {
		name   string
		status authenticationv1.TokenReviewStatus
		want   []string
		ok     bool
	}{
		{"good", status(true, "u"), nil, true},
		{"refused", status(false, ""), nil, false},
		{"nobody", status(true, ""), nil, false},
		{"for us", status(true, "u", "api", "corax"), []string{"corax"}, true},
		{"for another", status(true, "u", "api"), []string{"corax"}, false},
		{"an authenticator without audiences", status(true, "u"), []string{"corax"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := userOf(&tt.status, tt.want)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrUnauthenticated) || tt.ok && u.Name != "u" {
				t.Errorf("%+v, %v", u, err)
			}
		})
	}
}

// TestReviews sees what goes to the API server, and what comes of its answers.
func TestReviews(t *testing.T) {
	answer, code := "", http.StatusCreated
	var asked []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer)
	}))
	defer s.Close()
	c, err := newClient(Config{Node: "me", Update: func(control.Snapshot) {}}, &rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	answer = `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true,"user":{"username":"u","uid":"1","groups":["g"],"extra":{"k":["v"]}},"audiences":["a"]}}`
	u, err := c.User(t.Context(), "secret", []string{"a"})
	want := User{Name: "u", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	if diff := cmp.Diff(want, u); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	var review authenticationv1.TokenReview
	if err := json.Unmarshal(asked, &review); err != nil || review.Spec.Token != "secret" || !cmp.Equal(review.Spec.Audiences, []string{"a"}) {
		t.Errorf("asked %s", asked)
	}

	answer = `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`
	q := Question{Verb: "get", Subresource: "metrics", Node: "edge-1"}
	if ok, _, err := c.May(t.Context(), u, q); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	var access authorizationv1.SubjectAccessReview
	if err := json.Unmarshal(asked, &access); err != nil {
		t.Fatal(err)
	}
	wantSpec := authorizationv1.SubjectAccessReviewSpec{
		User: "u", UID: "1", Groups: []string{"g"}, Extra: map[string]authorizationv1.ExtraValue{"k": {"v"}},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "nodes", Subresource: "metrics", Name: "edge-1"},
	}
	if diff := cmp.Diff(wantSpec, access.Spec); diff != "" {
		t.Error(diff)
	}
	answer = `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true,"denied":true,"reason":"no"}}`
	if ok, why, err := c.May(t.Context(), u, q); ok || why != "no" || err != nil {
		t.Errorf("denied: %v, %q, %v", ok, why, err)
	}

	answer, code = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, http.StatusForbidden
	if _, err := c.User(t.Context(), "secret", nil); err == nil || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a front without rights: %v", err)
	}
	if ok, _, err := c.May(t.Context(), u, q); ok || err == nil {
		t.Errorf("a front without rights: %v, %v", ok, err)
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.User(ctx, "secret", nil); err == nil || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the API server is away: %v", err)
	}
	counted := map[string]uint64{}
	for _, n := range c.Counters() {
		counted[n.Name+"/"+n.Reason] = n.Value
	}
	if counted["kube_token_reviews_total/ok"] != 1 || counted["kube_token_reviews_total/denied"] != 1 || counted["kube_access_reviews_total/ok"] != 2 {
		t.Errorf("counted %v", counted)
	}
}
