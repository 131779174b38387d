package edge_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"corax/control"
	"corax/proxy"
)

// TestLapsed has steps on a clock of its own: a stream is open, the plan changes, and
// it ends or goes on.
func TestLapsed(t *testing.T) {
	elsewhere := func(p *control.Proxy) { p.Callers = nil }
	forNode := func(change func(*control.ProxyNode)) func(*control.Proxy) {
		return func(p *control.Proxy) { change(&p.Nodes[0]) }
	}
	type step struct {
		after  time.Duration
		change func(*control.Proxy)
		listed bool
		ended  bool // when the next step begins
	}
	same := func(*control.Proxy) {}
	for _, tt := range []struct {
		name  string
		steps []step
		end   proxy.End
		text  string
	}{
		{"nothing changes", []step{{0, same, true, false}, {time.Hour, same, true, false}}, "", ""},
		{"a hand-over between gateway nodes", []step{{0, elsewhere, true, false}, {time.Hour, elsewhere, true, false}}, "", ""},
		{"a front that is not in the list of peers yet", []step{{0, same, false, false}, {time.Hour, same, false, false}}, "", ""},
		{"the caller is gone", []step{{0, elsewhere, false, false}, {59 * time.Second, elsewhere, false, false}, {time.Second, same, true, true}}, proxy.EndCaller, "no endpoint"},
		{"the caller comes back", []step{
			{0, elsewhere, false, false},
			{59 * time.Second, elsewhere, true, false},
			{59 * time.Second, elsewhere, false, false},
			{59 * time.Second, elsewhere, false, false},
			{time.Second, same, true, true},
		}, proxy.EndCaller, "no endpoint"},
		{"the node leaves", []step{{0, forNode(func(n *control.ProxyNode) { n.Own = false }), true, false}, {time.Minute, same, true, true}}, proxy.EndNode, "not of this domain"},
		{"the node has another address", []step{{0, forNode(func(n *control.ProxyNode) { n.IP = netip.MustParseAddr("192.168.1.2") }), true, false}, {time.Minute, same, true, true}}, proxy.EndNode, "another address"},
		{"the port is taken out", []step{{0, func(p *control.Proxy) { p.Ports = []uint16{9100} }, true, false}, {time.Minute, same, true, true}}, proxy.EndPort, "10250"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
				c := w.call(front)
				if r := ask(t, c, proxy.Target{Node: "a1", Port: 10250}); r != nil {
					t.Fatal(r)
				}
				node := <-w.nodes
				for i, s := range tt.steps {
					time.Sleep(s.after)
					synctest.Wait()
					if ended := w.live.Len() == 0; ended != s.ended {
						t.Fatalf("step %d: ended %t", i, ended)
					}
					p := plan()
					p.Nodes = slices.Clone(p.Nodes)
					s.change(&p)
					listed := map[netip.Addr]string{}
					if s.listed {
						listed[front] = "hub-1"
					}
					w.edge.Apply(p, listed)
				}
				want := map[proxy.End]uint64{proxy.EndIdle: 0, proxy.EndCaller: 0, proxy.EndNode: 0, proxy.EndPort: 0, proxy.EndMemory: 0}
				if tt.end != "" {
					want[tt.end] = 1
				}
				if got := w.counters.Snapshot().Ended; !equal(got, want) {
					t.Errorf("counted %v", got)
				}
				_ = c.Close()
				_ = node.Close()
				synctest.Wait()
				line := auditLine(t, w)
				if !strings.Contains(line, tt.text) || (tt.text != "" && !strings.Contains(line, "end=\"")) {
					t.Errorf("audit line %s", line)
				}
			})
		})
	}
}

func equal(a, b map[proxy.End]uint64) bool {
	for e, n := range b {
		if a[e] != n {
			return false
		}
	}
	return len(a) == len(b)
}

// auditLine returns the one audit line that there is.
func auditLine(t *testing.T, w *world) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(w.log.String()) {
		if strings.Contains(line, "component=audit") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%d audit lines:\n%s", len(lines), w.log)
	}
	return lines[0]
}

// TestAudit shows what is written down of a stream, and that its bytes are not.
func TestAudit(t *testing.T) {
	inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
		w.edge.Apply(plan(), map[netip.Addr]string{front: "hub-1"})
		c := w.call(front)
		if r := ask(t, c, proxy.Target{Node: "a1", Port: 10250}); r != nil {
			t.Fatal(r)
		}
		node := <-w.nodes
		go func() { _, _ = c.Write([]byte("secret")); _ = c.CloseWrite() }()
		_, _ = node.Read(make([]byte, 6))
		go func() { _, _ = node.Write([]byte("so")); time.Sleep(3 * time.Second); _ = node.CloseWrite() }()
		_, _ = c.Read(make([]byte, 2))
		_, _ = c.Read(make([]byte, 2))
		synctest.Wait()
		line := auditLine(t, w)
		for _, want := range []string{
			"level=INFO", "msg=stream", "front=edge", "node=a1", "port=10250", "source=[" + front.String() + "]:40000", "sourceNode=hub-1",
			"duration=3s", "upBytes=6", "downBytes=2", "end=done",
		} {
			if !strings.Contains(line, want) {
				t.Errorf("no %s in %s", want, line)
			}
		}
		if strings.Contains(w.log.String(), "secret") {
			t.Error("content in the log")
		}
	})
}

// TestIdle shows that a stream ends on which nothing moves, and that either direction
// keeps it.
func TestIdle(t *testing.T) {
	inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
		c := w.call(front)
		if r := ask(t, c, proxy.Target{Node: "a1", Port: 10250}); r != nil {
			t.Fatal(r)
		}
		node := <-w.nodes
		began := time.Now()
		for _, way := range [][2]duplex{{c, node}, {node, c}} {
			time.Sleep(4*time.Hour - time.Second)
			go func() { _, _ = way[0].Write([]byte("x")) }()
			if _, err := way[1].Read(make([]byte, 1)); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		last := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("it goes on")
		}
		if d := time.Since(last); d != 4*time.Hour {
			t.Errorf("it ended after %v", d)
		}
		synctest.Wait()
		if n := w.counters.Snapshot().Ended[proxy.EndIdle]; n != 1 {
			t.Errorf("counted %d", n)
		}
		if line := auditLine(t, w); !strings.Contains(line, "nothing moved for 4h0m0s") {
			t.Errorf("audit line %s", line)
		}
	})
}
