package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"corax/control/api/v1beta1"
)

// Pace of the publisher.
const (
	// startDelay is the longest random time that the first write, and the first
	// after an outage, waits: many agents start together.
	startDelay = 10 * time.Second
	// writeEvery is the time between two writes at least.
	writeEvery = 30 * time.Second
	// firstRetry doubles with every refused write, to lastRetry.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// writer is what a publisher needs of the API server.
type writer interface {
	readGateway(ctx context.Context, name string) ([]byte, error)
	patchGateway(ctx context.Context, name string, patch []byte) error
}

// publisher keeps this node's endpoint entries up to date. run owns it.
type publisher struct {
	node     string
	api      writer
	link     *link
	log      *slog.Logger
	random   func() float64 // from 0 to 1
	wake     chan struct{}
	online   chan struct{}
	entry    latest[Entry]
	gateways latest[[]v1beta1.Gateway] // those that list the node
	// balancers are those in front of the node, by Gateway.
	balancers latest[map[string]balancer]
	// bound is the public address of one of them, when that has another.
	bound latest[bound]

	notBefore time.Time // of the next write
	failures  int       // in a row
	tried     string    // the Gateway written last, so that one that fails does not keep others waiting
}

func newPublisher(node string, api writer, l *link, log *slog.Logger) *publisher {
	p := &publisher{
		node: node, api: api, link: l, log: log, random: rand.Float64,
		wake: make(chan struct{}, 1), online: make(chan struct{}, 1),
	}
	p.entry.wake, p.gateways.wake, p.balancers.wake = p.wake, p.wake, p.wake
	p.bound.wake = p.wake
	l.onConnect(p.online)
	return p
}

// run writes when there is something to write, until ctx is done.
func (p *publisher) run(ctx context.Context) error {
	p.spread(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.online:
			p.failures = 0
			p.spread(time.Now())
		case <-p.wake:
		case <-timer.C:
		}
		name, ok := p.next()
		if !ok {
			continue
		}
		if wait := time.Until(p.notBefore); wait > 0 {
			timer.Reset(wait)
			continue
		}
		p.write(ctx, name)
		timer.Reset(time.Until(p.notBefore))
	}
}

// spread puts the next write off for a random time.
func (p *publisher) spread(now time.Time) {
	p.notBefore = later(p.notBefore, now.Add(time.Duration(p.random()*float64(startDelay))))
}

// next returns a Gateway in which this node's entries are not up to date. There is
// none while the API server is away: then every attempt would be for nothing.
func (p *publisher) next() (string, bool) {
	e, ok := p.entry.get()
	list, _ := p.gateways.get()
	balancers := p.reached()
	if !ok || !p.link.state().Connected {
		return "", false
	}
	var first string
	for i := range list {
		if stands(&list[i], p.node, e, balancers) {
			continue
		}
		name := list[i].Metadata.Name
		if name > p.tried {
			return name, true
		}
		if first == "" {
			first = name
		}
	}
	return first, first != ""
}

// reached is how the balancers in front of the node are reached, by Gateway.
func (p *publisher) reached() map[string]balancer {
	all, _ := p.balancers.get()
	b, _ := p.bound.get()
	out := make(map[string]balancer, len(all))
	for g, x := range all {
		out[g] = b.of(x)
	}
	return out
}

// write brings one Gateway up to date.
func (p *publisher) write(ctx context.Context, name string) {
	e, _ := p.entry.get()
	p.tried = name
	wrote, err := p.update(ctx, name, e)
	now := time.Now()
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		p.failures++
		p.notBefore = now.Add(backoff(p.failures, p.random()))
		p.link.wrote(err)
		p.log.Warn("this node's endpoint entry could not be written", "gateway", name, "retry", time.Until(p.notBefore).Round(time.Second), "err", err)
	default:
		p.failures = 0
		p.notBefore = now.Add(writeEvery)
		if wrote {
			p.link.wrote(nil)
			p.log.Info("this node's endpoint entry written", "gateway", name)
		}
	}
}

// update reads a Gateway and patches it when that is necessary: what the reflector
// has may be older than the API server's.
func (p *publisher) update(ctx context.Context, name string, e Entry) (bool, error) {
	b, err := p.api.readGateway(ctx, name)
	if err != nil {
		return false, err
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return false, fmt.Errorf("gateway/%s: %w", name, err)
	}
	balancers := p.reached()
	ops := patch(d, p.node, e, balancers)
	if len(ops) == 0 {
		return false, nil
	}
	body, err := json.Marshal(ops)
	if err != nil {
		return false, fmt.Errorf("gateway/%s: %w", name, err)
	}
	return true, p.api.patchGateway(ctx, name, body)
}

// backoff is how long to wait after the n-th failure in a row; random is from 0 to
// 1. It doubles, and half of it is random, so that those who were refused together
// do not come back together.
func backoff(n int, random float64) time.Duration {
	d := lastRetry
	if n < 20 {
		d = min(firstRetry<<(n-1), lastRetry)
	}
	return d/2 + time.Duration(random*float64(d/2))
}
