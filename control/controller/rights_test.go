package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
)

// reviewer is an API server that answers what an account may do.
type reviewer struct {
	mu     sync.Mutex
	denied map[string]bool // "verb resource" or "verb resource/name"
	down   bool
	asked  int
}

func (v *reviewer) set(down bool, denied ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.down, v.denied = down, map[string]bool{}
	for _, d := range denied {
		v.denied[d] = true
	}
}

func (v *reviewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	var review authorizationv1.SelfSubjectAccessReview
	if v.down || json.NewDecoder(r.Body).Decode(&review) != nil || !strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	a := review.Spec.ResourceAttributes
	review.Status.Allowed = !v.denied[a.Verb+" "+a.Resource] && !v.denied[a.Verb+" "+a.Resource+"/"+a.Name]
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

func newTestRights(t *testing.T, v *reviewer, disable ...string) (*rights, *bytes.Buffer) {
	t.Helper()
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	log := new(bytes.Buffer)
	cfg, err := Config{Disable: disable, Log: slog.New(slog.NewTextHandler(log, nil))}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRights(cfg, &rest.Config{Host: s.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return r, log
}

// TestRights: only what needs a right that is missing is off, and each change is told.
func TestRights(t *testing.T) {
	for _, tt := range []struct {
		name    string
		denied  []string
		disable []string
		off     []string
		lacks   string // part of what Ready says
	}{
		{"everything", nil, nil, nil, ""},
		{"requests", []string{"list certificatesigningrequests"}, nil, []string{"certificates"}, "certificatesigningrequests.certificates.k8s.io"},
		{"only to list", []string{"watch certificatesigningrequests"}, nil, []string{"certificates"}, "certificatesigningrequests"},
		{"services", []string{"list services"}, nil, []string{"expose", "names", "settings"}, "services in kube-system"},
		{"one ConfigMap", []string{"list configmaps/edge-tunnel-nodes"}, nil, []string{"names"}, "configmaps/edge-tunnel-nodes in kube-system"},
		{"leases", []string{"watch leases"}, nil, []string{"gateways"}, "leases.coordination.k8s.io in corax-leases"},
		{"nodes", []string{"list nodes"}, nil, []string{"domains", "expose", "gateways", "names"}, "nodes"},
		{"of what is disabled anyhow", []string{"list certificatesigningrequests"}, []string{"certificates"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &reviewer{}
			v.set(false, tt.denied...)
			r, log := newTestRights(t, v, tt.disable...)
			if changed := r.look(t.Context()); changed != (tt.off != nil) {
				t.Errorf("changed: %v", changed)
			}
			var off []string
			for _, name := range Reconcilers() {
				if r.lacks(name) != "" {
					off = append(off, name)
					if !strings.Contains(log.String(), "reconciler="+name) {
						t.Errorf("nothing is said of %s:\n%s", name, log)
					}
				}
			}
			slices.Sort(off)
			if !slices.Equal(off, tt.off) {
				t.Errorf("off: %q, want %q", off, tt.off)
			}
			if err := r.Ready(); (err != nil) != (tt.off != nil) || err != nil && !strings.Contains(err.Error(), tt.lacks) {
				t.Errorf("ready: %v", err)
			}
			// Asked again: the same, and nothing is said twice.
			told := log.Len()
			if r.look(t.Context()) || log.Len() != told {
				t.Errorf("told again:\n%s", log)
			}
			// An API server that is away changes nothing.
			v.set(true)
			if r.look(t.Context()) || (r.Ready() != nil) != (tt.off != nil) {
				t.Error("an outage changes something")
			}
			v.set(false)
			if changed := r.look(t.Context()); changed != (tt.off != nil) || r.Ready() != nil {
				t.Errorf("with all rights: %v, %v", changed, r.Ready())
			}
		})
	}
	// Every reconciler is known, and what it reads.
	for _, name := range Reconcilers() {
		if len(reads(Config{})[name]) == 0 {
			t.Errorf("%s reads nothing", name)
		}
	}
}

// TestRightsAwait: nothing is asked while all is well; what a cache is refused is found.
func TestRightsAwait(t *testing.T) {
	v := &reviewer{}
	r, _ := newTestRights(t, v)
	r.look(t.Context())
	asked := v.asked
	ctx, cancel := context.WithCancel(t.Context())
	moved := make(chan bool)
	go func() { moved <- r.await(ctx) }()
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "", errors.New("no"))
	reflector := toolscache.NewReflector(nil, nil, nil, 0)
	r.watchFailed(ctx, reflector, errors.New("something else"))
	select {
	case <-moved:
		t.Fatal("it returns without a reason")
	case <-time.After(20 * time.Millisecond):
	}
	v.mu.Lock()
	if v.asked != asked {
		t.Error("it asks without a reason")
	}
	v.mu.Unlock()
	v.set(false, "list services")
	r.watchFailed(ctx, reflector, forbidden)
	select {
	case ok := <-moved:
		if !ok || r.lacks("expose") == "" || r.lacks("domains") != "" {
			t.Errorf("%v, %v", ok, r.Ready())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not find out")
	}
	go func() { moved <- r.await(ctx) }()
	cancel()
	if <-moved {
		t.Error("moved without rights")
	}
}
