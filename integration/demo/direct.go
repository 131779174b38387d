//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"corax/integration/lab"
)

const (
	bulkPort = 7001
	// The transfer takes several seconds, of which the path is relayed for one.
	bulkBytes = 100 << 20
	bulkRate  = 12 << 20 // a second
	watchTime = 20 * time.Millisecond
)

// stunServer is on the host that all packets of the WAN pass: with the hub it
// shows the edges what their NATs do.
var stunServer = netip.MustParseAddrPort("203.0.113.1:3478")

// paths is what the demo wants to know of GET /v1/paths.
type paths struct {
	Path struct {
		Kind string `json:"kind"`
		Why  string `json:"why"`
	} `json:"path"`
	Transitions []transition `json:"transitions"`
}

// transition is a change of the path to a peer.
type transition struct {
	At    time.Time `json:"at"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Cause string    `json:"cause"`

	peer string // "NODE to NODE"; empty: the first byte arrived
}

// end is one of the gateway nodes between which something is transferred.
type end struct {
	agent *lab.Agent
	peer  string // the other's node
	seen  int    // transitions that were shown
	last  paths
}

func newEnd(own, other *lab.Domain) *end {
	return &end{agent: own.Agents[0], peer: other.Gateway().Name}
}

// news asks the agent for its path, and returns the transitions that are new.
func (e *end) news(ctx context.Context) ([]transition, error) {
	b, err := e.agent.Get(ctx, "/v1/paths?peer="+e.peer)
	if err != nil {
		return nil, err
	}
	e.last = paths{}
	if err := json.Unmarshal(b, &e.last); err != nil {
		return nil, err
	}
	fresh := e.last.Transitions[min(e.seen, len(e.last.Transitions)):]
	e.seen = len(e.last.Transitions)
	for i := range fresh {
		fresh[i].peer = e.agent.Host.Name + " to " + e.peer
	}
	return fresh, nil
}

// edgeToEdge sends the first packets between two edges, a transfer, and shows
// how the path becomes direct meanwhile.
func (d *demo) edgeToEdge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	a, b, hub := d.topo.Domains[1], d.topo.Domains[2], d.topo.Domains[0].Agents[0]
	from, to := a.Nodes[1].Pods[0], b.Nodes[1].Pods[0]
	ends := []*end{newEnd(a, b), newEnd(b, a)}
	for _, e := range ends {
		if fresh, err := e.news(ctx); err != nil || len(fresh) > 0 {
			return errors.Join(err, fmt.Errorf("%d changes of the path before the first packet", len(fresh)))
		}
	}
	before, err := relayed(ctx, hub)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n  From edge to edge, both behind NATs: %d MB at %d MB/s from %s to a pod of %s\n\n",
		bulkBytes>>20, bulkRate>>20, d.from(from).Name, b.Nodes[1].Name)
	start := time.Now()
	d.say(start, start, "first packet")
	bulk, err := lab.StartBulk(ctx, d.from(from), to.Host, netip.AddrPortFrom(to.IP, bulkPort), bulkBytes, bulkRate)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- bulk.Wait(ctx) }()
	err = d.watch(ctx, start, bulk, ends, done)
	_ = bulk.Close()
	if err != nil {
		return err
	}
	after, err := relayed(ctx, hub)
	if err != nil {
		return err
	}
	d.say(start, time.Now(), fmt.Sprintf("all %d MB arrived, SHA-256 right; longest pause %d ms; %.1f MB went over %s",
		bulkBytes>>20, bulk.Pause().Milliseconds(), (after-before)/(1<<20), hub.Host.Name))
	d.sums.transfers++
	d.sums.bytes += bulkBytes
	for _, e := range ends {
		if e.last.Path.Kind != "direct" {
			return fmt.Errorf("the path from %s to %s is %s: %s", e.agent.Host.Name, e.peer, e.last.Path.Kind, e.last.Path.Why)
		}
	}
	return d.showPaths(ctx, ends[0])
}

// watch shows what changes while a transfer runs.
func (d *demo) watch(ctx context.Context, start time.Time, bulk *lab.Bulk, ends []*end, done <-chan error) error {
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	first := false
	for {
		var ended bool
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			ended = true
		case <-tick.C:
		}
		var all []transition
		for _, e := range ends {
			fresh, err := e.news(ctx)
			if err != nil {
				return err
			}
			all = append(all, fresh...)
		}
		moved, arrived := bulk.Moved(), bulk.First()
		if !first && !arrived.IsZero() {
			first = true
			all = append(all, transition{At: arrived})
		}
		slices.SortStableFunc(all, func(x, y transition) int { return x.At.Compare(y.At) })
		for _, t := range all {
			switch text := fmt.Sprintf("%s: %s (%s)", t.peer, t.To, t.Cause); {
			case t.peer == "":
				d.say(start, t.At, "first byte arrived")
			case arrived.IsZero() || t.At.Before(arrived):
				d.say(start, t.At, text)
			default:
				d.say(start, t.At, fmt.Sprintf("%s; %.1f MB have arrived", text, float64(moved)/(1<<20)))
			}
		}
		if ended {
			return nil
		}
	}
}

// say prints what happened at a time.
func (d *demo) say(start, at time.Time, text string) {
	fmt.Fprintf(d.out, "  %8.3f s  %s\n", max(at.Sub(start), 0).Seconds(), text)
}

// relayed returns how many bytes of others a hub has relayed.
func relayed(ctx context.Context, hub *lab.Agent) (float64, error) {
	m, err := hub.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	const name = "corax_wg_relay_bytes_total"
	n, ok := m[name]
	if !ok {
		return 0, errors.New("the hub has no metric " + name)
	}
	return n, nil
}

// showPaths prints what an end knows of its ways to the other.
func (d *demo) showPaths(ctx context.Context, e *end) error {
	table, err := e.agent.Command(ctx, "paths", e.peer)
	if err != nil {
		return fmt.Errorf("corax paths on %s: %w", e.agent.Host.Name, err)
	}
	fmt.Fprintf(d.out, "\n$ corax paths %s     (on %s)\n%s", e.peer, e.agent.Host.Name, table)
	return nil
}
