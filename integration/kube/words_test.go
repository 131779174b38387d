//go:build linux

package kube_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/blake2s"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
)

// sum is the hash at the end of a name that had to be changed.
func sum(name string) string {
	s := blake2s.Sum256([]byte(name))
	return hex.EncodeToString(s[:4])
}

// freeAddr is an address of loopback on which nobody listened a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// unready returns an error unless readyz fails with the words.
func unready(ctx context.Context, addr, words string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode == http.StatusOK || !strings.Contains(string(body), words) {
		return fmt.Errorf("%s: %s", answer.Status, body)
	}
	return nil
}

// hasEvent returns an error unless there is an event of an object.
func hasEvent(ctx context.Context, c *cluster.Cluster, reason, name string) error {
	list, err := c.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if e := &list.Items[i]; e.Reason == reason && e.Regarding.Name == name {
			return nil
		}
	}
	return fmt.Errorf("%d events, and none %s of %s", len(list.Items), reason, name)
}

// holder is who has the leader's Lease.
func holder(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	l, err := c.Client.CoordinationV1().Leases("kube-system").Get(t.Context(), "corax-controller", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

var errDead = errors.New("the process is dead")

// lastWords lets some requests that change something through, and no further one,
// as of a process that was killed there. The request after which it dies is the
// last one that is answered.
type lastWords struct {
	after  int64
	writes atomic.Int64
}

func (l *lastWords) wrap(next http.RoundTripper) http.RoundTripper { return &dying{l, next} }

func (l *lastWords) dead(context.Context) error {
	if n := l.writes.Load(); n <= l.after {
		return fmt.Errorf("%d writes", n)
	}
	return nil
}

type dying struct {
	*lastWords
	next http.RoundTripper
}

func (d *dying) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && d.writes.Add(1) > d.after {
		return nil, errDead
	}
	return d.next.RoundTrip(r)
}
