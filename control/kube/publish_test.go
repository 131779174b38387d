package kube

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"corax/control/api/v1beta1"
)

var gatewayResource = schema.GroupResource{Group: v1beta1.Group, Resource: "gateways"}

// cluster is an API server in memory that publisher and keeper write to. All
// goroutines that use it are in one bubble.
type cluster struct {
	mu       sync.Mutex // time that passes orders nothing, as the race detector sees it
	t        *testing.T
	gateways map[string]string
	fail     []error // of the next writes
	writes   []time.Time
	reads    int
}

func (c *cluster) readGateway(_ context.Context, name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	g, ok := c.gateways[name]
	if !ok {
		return nil, apierrors.NewNotFound(gatewayResource, name)
	}
	return []byte(g), nil
}

func (c *cluster) patchGateway(_ context.Context, name string, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, time.Now())
	if len(c.fail) > 0 {
		err := c.fail[0]
		c.fail = c.fail[1:]
		if err != nil {
			return err
		}
	}
	p, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	after, err := p.Apply([]byte(c.gateways[name]))
	if err != nil {
		return &apierrors.StatusError{ErrStatus: apierrors.NewGenericServerResponse(422, "patch", gatewayResource, name, err.Error(), 0, false).ErrStatus}
	}
	c.gateways[name] = string(after)
	return nil
}

// show gives the publisher what a reflector would have by now.
func (c *cluster) show(p *publisher) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []v1beta1.Gateway
	for _, doc := range c.gateways {
		var o object
		if err := json.Unmarshal([]byte(doc), &o); err != nil {
			c.t.Fatal(err)
		}
		list = append(list, o.gateway)
	}
	p.gateways.put(listing(list, "me"))
}

// publishing runs a publisher in a bubble: connected, with a random of half.
func publishing(t *testing.T, test func(c *cluster, p *publisher)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, gateways: map[string]string{"g": gatewayWith(`{"nodeName":"me","type":"tunnel"}`)}}
		log := slog.New(slog.DiscardHandler)
		p := newPublisher("me", c, newLink("https://api", log, nil), log)
		p.random = func() float64 { return 0.5 }
		p.link.read(nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		synctest.Wait()
		test(c, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// after waits, and lets everybody finish.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *cluster) wrote(n int) {
	c.t.Helper()
	if got := len(c.times()); got != n {
		c.t.Fatalf("%d writes, want %d", got, n)
	}
}

// times returns when each write came.
func (c *cluster) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

// asked returns how many reads there were.
func (c *cluster) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

func (c *cluster) doc(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gateways[name]
}

func (c *cluster) set(name, doc string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateways[name] = doc
}

func TestFirstWriteWaits(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.show(p)
		p.entry.put(Entry{PublicKey: "K1"})
		after(4900 * time.Millisecond)
		c.wrote(0)
		after(200 * time.Millisecond)
		c.wrote(1)
		c.show(p)
		after(24 * time.Hour)
		c.wrote(1)
		if s := p.link.state(); s.Written.IsZero() || s.WriteErr != "" {
			t.Errorf("state %+v", s)
		}
	})
}

func TestWritesAreRare(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.show(p)
		for i := range 600 {
			p.entry.put(Entry{PublicKey: "K1", PublicPort: 1000 + i})
			after(time.Second)
			c.show(p)
		}
		if n := len(c.times()); n < 18 || n > 20 {
			t.Errorf("%d writes in 10 minutes, want one in 30 s", n)
		}
		at := c.times()
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < writeEvery {
				t.Errorf("two writes within %v", d)
			}
		}
		after(time.Minute)
		if got := patchOf(t, c.doc("g"), Entry{PublicPort: 1599}); got != "null" {
			t.Errorf("the newest value is not there: %s", got)
		}
	})
}

func TestOnlyWhenListed(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.set("g", gatewayWith())
		c.show(p)
		p.entry.put(Entry{PublicKey: "K1"})
		after(time.Hour)
		if c.asked() != 0 || len(c.times()) != 0 {
			t.Errorf("%d reads and %d writes without being listed", c.asked(), len(c.times()))
		}
		c.set("g", gatewayWith(`{"nodeName":"me","type":"proxy"}`))
		c.show(p)
		after(time.Second)
		c.wrote(1)
	})
}

func TestNothingWhileAway(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		p.link.read(errors.New("refused"))
		c.show(p)
		p.entry.put(Entry{PublicKey: "K1"})
		after(time.Hour)
		if c.asked() != 0 {
			t.Errorf("%d reads while the API server is away", c.asked())
		}
		p.link.read(nil)
		after(4900 * time.Millisecond)
		c.wrote(0) // those who come back together do not write together
		after(200 * time.Millisecond)
		c.wrote(1)
	})
}

func TestRefusedWritesBackOff(t *testing.T) {
	for name, err := range map[string]error{
		"409": apierrors.NewConflict(gatewayResource, "g", errors.New("x")),
		"422": apierrors.NewInvalid(schema.GroupKind{}, "g", nil),
		"429": apierrors.NewTooManyRequests("x", 1),
		"504": apierrors.NewTimeoutError("x", 1),
		"403": apierrors.NewForbidden(gatewayResource, "g", errors.New("x")),
	} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(c *cluster, p *publisher) {
				c.fail = []error{err, err, err, err, err}
				c.show(p)
				p.entry.put(Entry{PublicKey: "K1"})
				after(29 * time.Second)
				c.wrote(6)
				at := c.times()
				for i, want := range []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 6 * time.Second, 12 * time.Second} {
					if d := at[i+1].Sub(at[i]); d != want {
						t.Errorf("wait %d: %v, want %v", i, d, want)
					}
				}
				if s := p.link.state(); s.WriteErr != "" {
					t.Errorf("the last error stays: %q", s.WriteErr)
				}
				if c.asked() != 6 {
					t.Errorf("%d reads, want one before each write", c.asked())
				}
			})
		})
	}
}

// TestMovedEntryIsFoundAgain lets the entry move between what the reflector saw
// and the write.
func TestMovedEntryIsFoundAgain(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.show(p)
		c.set("g", gatewayWith(`{"nodeName":"new","type":"tunnel"}`, `{"nodeName":"me","type":"tunnel","underNAT":false}`))
		p.entry.put(Entry{PublicKey: "K1"})
		after(time.Minute)
		c.wrote(1)
		want := gatewayWith(`{"nodeName":"new","type":"tunnel"}`, `{"nodeName":"me","type":"tunnel","underNAT":false,"config":{"publicKey":"K1"}}`)
		if !jsonpatch.Equal([]byte(c.doc("g")), []byte(want)) {
			t.Errorf("got  %s\nwant %s", c.doc("g"), want)
		}
	})
}

// TestOldViewWritesNothing: the reflector lags behind, and the entry says it all
// already.
func TestOldViewWritesNothing(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.show(p)
		c.set("g", gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`))
		p.entry.put(Entry{PublicKey: "K1"})
		after(10 * time.Minute)
		c.wrote(0)
		if c.asked() > 21 {
			t.Errorf("%d reads in 10 minutes", c.asked())
		}
	})
}

// TestOneBadGatewayKeepsNobodyWaiting: the node is listed in two, and the first
// refuses for good.
func TestOneBadGatewayKeepsNobodyWaiting(t *testing.T) {
	publishing(t, func(c *cluster, p *publisher) {
		c.set("g", gatewayWith())
		c.set("a", `{"metadata":{"name":"a"},"spec":{"endpoints":[{"nodeName":"me","type":"tunnel","config":[]}]}}`)
		c.set("b", `{"metadata":{"name":"b"},"spec":{"endpoints":[{"nodeName":"me","type":"tunnel"}]}}`)
		c.show(p)
		p.entry.put(Entry{PublicKey: "K1"})
		after(time.Minute)
		if got := patchOf(t, c.doc("b"), Entry{PublicKey: "K1"}); got != "null" {
			t.Errorf("the second Gateway still waits for %s", got)
		}
	})
}

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		n      int
		random float64
		want   time.Duration
	}{
		{1, 0, 500 * time.Millisecond},
		{1, 1, time.Second},
		{4, 0.5, 6 * time.Second},
		{9, 1, 256 * time.Second},
		{10, 1, lastRetry},
		{10, 0, lastRetry / 2},
		{1000, 1, lastRetry},
	} {
		if got := backoff(tt.n, tt.random); got != tt.want {
			t.Errorf("backoff(%d, %v) = %v, want %v", tt.n, tt.random, got, tt.want)
		}
	}
}
