//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	// chaosRecovery bounds how long after an event every stream must move.
	// Single crashes of settled agents have bounds of their own.
	chaosRecovery = 20 * time.Second
	chaosShort    = 20 * time.Second
	chaosLong     = 10 * time.Minute
	// chaosSeedEnv names the environment variable with the seed of a run to
	// repeat; every run logs its own.
	chaosSeedEnv = "CORAX_CHAOS_SEED"
)

// soaking reports whether the long forms of the soak tests shall run.
func soaking() bool { return os.Getenv("CORAX_SOAK") != "" }

// chaos is a network in which things go wrong.
type chaos struct {
	*changing
	rnd    *rand.Rand
	active map[string]string // the gateway node of each domain
}

// TestSoakChaos lets things go wrong at random, one after another, while
// transfers run. None may break, and each goes on after every event. The long
// form takes ten minutes.
func TestSoakChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv(chaosSeedEnv), 10, 64); err == nil {
		seed = s
	}
	t.Logf("%s=%d", chaosSeedEnv, seed)
	c := newChaos(t, rand.New(rand.NewPCG(seed, 0)))
	span := chaosShort
	if soaking() {
		span = chaosLong
	}
	slowest := map[string]time.Duration{}
	events := 0
	for end := time.Now().Add(span); time.Now().Before(end); events++ {
		kind, what := c.event(t)
		began := time.Now()
		c.recover(t, what)
		took := time.Since(began)
		t.Logf("%s: all move after %v", what, took.Round(time.Millisecond))
		slowest[kind] = max(slowest[kind], took)
	}
	for kind, took := range slowest {
		t.Logf("slowest recovery of %d events, %s: %v", events, kind, took.Round(time.Millisecond))
	}
	for _, a := range c.topo.Agents() {
		u, err := agentUsage(t.Context(), a)
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s holds %+v", a.Host.Name, u)
	}
}

func newChaos(t *testing.T, rnd *rand.Rand) *chaos {
	c := &chaos{
		changing: &changing{t: t, topo: lab.Standard(lab.ForTest(t), lab.Options{NoCapture: true})},
		rnd:      rnd,
		active:   map[string]string{},
	}
	serveStreams(t, c.topo)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var err error
	if c.keys, err = c.topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, d := range c.topo.Domains {
		c.active[d.Name] = d.Gateway().Name
		c.write(t, d.Name, c.standby(d.Gateway().Name))
	}
	for _, a := range c.topo.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range c.topo.Agents() {
		if err := a.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i, ends := range [][2]string{
		{"cloud-gw", "edge-a-gw"},
		{"cloud-1", "edge-a-1"},
		{"edge-a-1", "cloud-gw"},
		{"cloud-gw", "edge-b-1"},
		{"edge-b-gw", "cloud-1"},
		{"edge-b-1", "cloud-1"},
	} {
		c.toA = append(c.toA, startStream(t, c.topo, ends[0], ends[1], i%2 == 1))
	}
	return c
}

// event lets one thing go wrong, and ends when it is over.
func (c *chaos) event(t *testing.T) (kind, what string) {
	t.Helper()
	agents := c.topo.Agents()
	c.rnd.Shuffle(len(agents), func(i, j int) { agents[i], agents[j] = agents[j], agents[i] })
	edges := c.topo.Domains[1:]
	edge := edges[c.rnd.IntN(len(edges))]
	away := time.Duration(c.rnd.IntN(2000)) * time.Millisecond
	switch c.rnd.IntN(6) {
	case 0:
		c.crash(t, away, agents[0])
		return "a crash", fmt.Sprintf("crash of %s for %v", agents[0].Host.Name, away)
	case 1:
		c.crash(t, away, agents[0], agents[1])
		return "two crashes", fmt.Sprintf("crash of %s and %s for %v", agents[0].Host.Name, agents[1].Host.Name, away)
	case 2:
		if err := agents[0].Restart(); err != nil {
			t.Fatal(err)
		}
		return "a restart", "restart of " + agents[0].Host.Name
	case 3:
		d := c.topo.Domains[c.rnd.IntN(len(c.topo.Domains))]
		to := d.Nodes[c.rnd.IntN(2)].Name
		c.move(t, d, to)
		return "a move", fmt.Sprintf("%s carries %s", to, d.Name)
	case 4:
		if err := edge.Router.Reboot(); err != nil {
			t.Fatal(err)
		}
		return "a router's reboot", "reboot of " + edge.Router.Name
	default:
		h := agents[0].Host
		h.Unplug("eth0")
		<-time.After(away)
		h.Plug("eth0")
		return "a pulled cable", fmt.Sprintf("%s without LAN for %v", h.Name, away)
	}
}

// crash kills agents and starts them again after some time.
func (c *chaos) crash(t *testing.T, away time.Duration, agents ...*lab.Agent) {
	t.Helper()
	for _, a := range agents {
		if err := a.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(away)
	for _, a := range agents {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// move makes a node the active endpoint of its domain, and waits until it knows.
func (c *chaos) move(t *testing.T, d *lab.Domain, to string) {
	t.Helper()
	c.write(t, d.Name, c.standby(to))
	c.active[d.Name] = to
	c.status(t, to, hasRole("gateway"))
}

// recover waits until every stream moves again.
func (c *chaos) recover(t *testing.T, after string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chaosRecovery)
	defer cancel()
	for _, s := range c.toA {
		for range 10 {
			if err := s.WaitMove(ctx); err != nil {
				t.Fatalf("stream from %s, after %s: %v", s.name, after, err)
			}
		}
	}
}
