package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/key"
)

const (
	// rotateLook is how often the next key is looked for on disk.
	rotateLook = 5 * time.Second
	// rotateSettle is how long the Gateway object must have named the next key
	// before it is used: every peer should have read it by then.
	rotateSettle = 30 * time.Second
)

// errNewKey ends a run of the agent that is to be followed by one with the next
// key.
var errNewKey error = newKey{}

type newKey struct{}

func (newKey) Error() string { return "the next key is used from now on" }

// Continues tells the keeper of the node's Lease that nobody has to take over.
func (newKey) Continues() bool { return true }

// runAgents runs the agent, again with each new key. Between the runs the TUN and
// the routes stay, as over a crash.
func runAgents(ctx context.Context, cfg agentConfig, log *slog.Logger) error {
	p := fitRuntime(cfg.MemoryProfile, log)
	for {
		if err := runAgent(ctx, cfg, p, log); !errors.Is(err, errNewKey) {
			return err
		}
		log.Info("the key changed")
	}
}

// rotation is the control loop's part of a change of this node's key.
type rotation struct {
	next   key.Private // zero: none
	looked time.Time
	shown  time.Time // since when the object names it; zero: it does not
}

// rotate looks once a second whether the key is to be changed, and reports
// whether it was: then the agent must run anew.
func (a *agent) rotate(now time.Time) bool {
	r, l := &a.loop.rotation, &a.loop
	if now.Sub(r.looked) >= rotateLook {
		r.looked = now
		a.lookForNext(now)
	}
	v := a.view.Load()
	if r.next.IsZero() || !v.have {
		return false
	}
	if !r.due(now, v.plan) {
		if v.plan.Next != r.next.Public() {
			l.notes["rotation"] = fmt.Sprintf("the next key of this node, %s, is not in its Gateway object yet: config corax.io/next-public-key", r.next.Public())
		} else {
			delete(l.notes, "rotation")
		}
		return false
	}
	if err := key.Promote(a.cfg.StateDir); err != nil {
		l.notes["rotation"] = err.Error()
		return false
	}
	a.log.Info("the next key is used now", "publicKey", r.next.Public(), "before", a.public)
	return true
}

// due reports whether the next key is to be used now.
func (r *rotation) due(now time.Time, plan control.Desired) bool {
	k := r.next.Public()
	switch {
	case plan.Role < control.RoleStandby, plan.Listed == k:
		return true // nobody knows the key, or everybody knows the next one only
	case plan.Next != k:
		r.shown = time.Time{}
		return false
	case r.shown.IsZero():
		r.shown = now
	}
	return now.Sub(r.shown) >= rotateSettle
}

// lookForNext reads the next key, and makes one when the present one is too old.
func (a *agent) lookForNext(now time.Time) {
	r, l := &a.loop.rotation, &a.loop
	had := !r.next.IsZero()
	next, err := key.LoadNext(a.cfg.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
		if period := a.cfg.KeyRotation; period > 0 && keyAge(a.cfg.StateDir, now) >= period {
			next, _, err = key.CreateNext(a.cfg.StateDir)
		}
	}
	r.next = next
	switch {
	case err != nil:
		l.notes["rotation"] = err.Error()
	case next.IsZero():
		delete(l.notes, "rotation")
	case !had:
		a.log.Info("this node will change its key", "next", next.Public())
	}
	if had != !r.next.IsZero() {
		a.inbox.poke()
	}
}

// keyAge is how long the private key has been in use; zero when that is not known.
func keyAge(dir string, now time.Time) time.Duration {
	st, err := os.Stat(filepath.Join(dir, key.FileName))
	if err != nil {
		return 0
	}
	return now.Sub(st.ModTime())
}

// nextPublic is the next public key as Gateway objects have it; empty: there is
// none.
func (a *agent) nextPublic() string {
	if k := a.loop.rotation.next; !k.IsZero() {
		return k.Public().String()
	}
	return ""
}

// heardKeys is when the keys of nodes that change theirs were last heard of.
type heardKeys struct {
	mu sync.Mutex
	at map[key.Public]time.Time
}

// heardKey notes that a key is in use.
func (a *agent) heardKey(k key.Public) {
	h := &a.keys
	h.mu.Lock()
	if h.at == nil {
		h.at = map[key.Public]time.Time{}
	}
	h.at[k] = time.Now()
	h.mu.Unlock()
	if isOther(a.view.Load().plan, k) {
		a.inbox.poke()
	}
}

// isOther reports whether the plan takes a key for one that is not in use.
func isOther(plan control.Desired, k key.Public) bool {
	for i := range plan.Config.Peers {
		if p := &plan.Config.Peers[i]; p.Other && p.PublicKey == k {
			return true
		}
	}
	if plan.Domain != nil {
		for _, m := range plan.Domain.Members {
			if m.Other == k {
				return true
			}
		}
	}
	return false
}

// heard returns what the plan must know of keys, and forgets those that no peer
// has any more.
func (a *agent) heard() map[key.Public]time.Time {
	plan := a.view.Load().plan
	known := map[key.Public]bool{}
	for i := range plan.Config.Peers {
		known[plan.Config.Peers[i].PublicKey] = true
	}
	if plan.Domain != nil {
		for _, m := range plan.Domain.Members {
			known[m.Key], known[m.Other] = true, true
		}
	}
	h := &a.keys
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[key.Public]time.Time, len(h.at))
	for k, at := range h.at {
		if !known[k] {
			delete(h.at, k)
			continue
		}
		out[k] = at
	}
	return out
}

// twins are the nodes of a plan that have two keys.
func twins(peers []dataplane.Peer) map[[2]string]bool {
	var out map[[2]string]bool
	for i := range peers {
		if p := &peers[i]; p.Other {
			if out == nil {
				out = map[[2]string]bool{}
			}
			out[[2]string{p.Gateway, p.Node}] = true
		}
	}
	return out
}
