//go:build linux

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// deadWithin is when a stream whose gateway node died has ended at the latest.
const deadWithin = 45 * time.Second

// newInternet is a world of two clouds and two edges behind NATs, whose only nodes
// have one address. The fronts are at cloud.
func newInternet(t *testing.T) *world {
	t.Helper()
	cone := []lab.NAT{{Mapping: lab.MapCone, Filtering: lab.FilterPort, V6: lab.V6Block}}
	w := &world{t: t, ca: newAuthority(t), Topology: lab.Internet(lab.ForTest(t), lab.InternetOptions{Sites: []lab.Site{
		{Name: "cloud", Hub: true}, {Name: "other", Hub: true}, {Name: "edge-a", NATs: cone}, {Name: "edge-b", NATs: cone},
	}})}
	w.front, w.other = w.Node("cloud-gw"), w.Node("other-gw")
	if a, b := w.Node("edge-a-gw").IP, w.Node("edge-b-gw").IP; a != b {
		t.Fatalf("the nodes have the addresses %s and %s", a, b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	w.keys, err = w.Prepare(ctx)
	must(t, err)
	for _, d := range w.Domains {
		must(t, w.write(d))
	}
	w.Agent(w.front.Name).SetArgs("--proxy-connect-socket=" + w.socket())
	for _, name := range []string{"edge-a-gw", "edge-b-gw"} {
		w.echoes(w.Node(name))
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range w.Agents() {
		must(t, a.Start())
		g.Go(func() error { return a.WaitReady(ctx) })
	}
	must(t, g.Wait())
	for _, node := range []string{"edge-a-gw", "edge-b-gw"} {
		eventually(t, 30*time.Second, node, func() error {
			c, _, err := w.connect(node, 9100)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
	}
	return w
}

// echoes serves on two ports of a node, with TLS and without: it says its name, and
// gives back what it gets.
func (w *world) echoes(n *lab.Node) {
	w.t.Helper()
	cert := w.ca.issue(w.t, "system:node:"+n.Name, n.Name)
	for port, secure := range map[uint16]bool{9100: false, 10250: true} {
		ln, err := n.ListenTCP(netip.AddrPortFrom(n.IP, port))
		must(w.t, err)
		var wg sync.WaitGroup
		w.t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					stop := context.AfterFunc(w.t.Context(), func() { _ = c.Close() })
					defer stop()
					if secure {
						c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
					}
					_, _ = io.WriteString(c, n.Name+"\n")
					_, _ = io.Copy(c, c)
				})
			}
		})
	}
}

// refused is an answer to CONNECT.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return fmt.Sprintf("%d %s", r.status, r.text) }

// connect opens a stream to a plain port over the front's socket, and checks that it
// is that node.
func (w *world) connect(node string, port uint16) (net.Conn, *bufio.Reader, error) {
	c, err := net.Dial("unix", w.socket())
	if err != nil {
		return nil, nil, err
	}
	_ = c.SetDeadline(time.Now().Add(25 * time.Second))
	r := bufio.NewReader(c)
	err = func() error {
		if _, err := fmt.Fprintf(c, "CONNECT %s:%d HTTP/1.1\r\nHost: %s\r\n\r\n", node, port, node); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(res.Body)
			return &refused{res.StatusCode, string(text)}
		}
		if name, err := r.ReadString('\n'); err != nil || name != node+"\n" {
			return fmt.Errorf("%q answered for %s: %w", name, node, err)
		}
		return nil
	}()
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, r, nil
}

func TestChannel(t *testing.T) {
	w := newInternet(t)
	t.Run("half-close", w.testHalfClose)
	t.Run("refusals", w.testRefusals)
	t.Run("path changes", w.testPathChanges)
	t.Run("ten thousand streams", w.testManyStreams)
	t.Run("gateway node dies", w.testGatewayDies)
}

func (w *world) testHalfClose(t *testing.T) {
	data := make([]byte, 4<<20)
	_, _ = rand.Read(data)
	for _, node := range []string{"edge-a-gw", "edge-b-gw"} {
		c, r, err := w.connect(node, 9100)
		must(t, err)
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		go func() {
			_, _ = c.Write(data)
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s gave back %d of %d bytes: %v", node, len(got), len(data), err)
		}
		_ = c.Close()
	}
}

func (w *world) testRefusals(t *testing.T) {
	for _, tt := range []struct {
		node   string
		port   uint16
		status int
		text   string
	}{
		{"edge-a-gw", 22, 403, "port 22"},
		{"edge-a-gw", 10255, 502, "connection refused"},
		{"192.168.1.10", 10250, 404, "192.168.1.10"},
		{"edge-z", 10250, 404, "edge-z"},
	} {
		_, _, err := w.connect(tt.node, tt.port)
		r, ok := errors.AsType[*refused](err)
		if !ok || r.status != tt.status || !strings.Contains(r.text, tt.text) {
			t.Errorf("%s, port %d: %v; want %d with %q", tt.node, tt.port, err, tt.status, tt.text)
		}
	}
}

// testPathChanges has a stream run while its path becomes a relay, and direct again.
func (w *world) testPathChanges(t *testing.T) {
	edge, router := w.Agent("edge-a-gw"), w.Domains[2].Router
	await := func(kinds ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		must(t, edge.WaitStatus(ctx, lab.OnPath(w.front.Name, kinds...)))
	}
	await("direct")
	c, r, err := w.connect("edge-a-gw", 9100)
	must(t, err)
	moved, failed := make(chan int), make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	block := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%07d\n", i)), 512) }
	wg.Go(func() {
		defer func() { _ = c.(*net.UnixConn).CloseWrite() }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := c.Write(block(i)); err != nil {
				failed <- fmt.Errorf("write: %w", err)
				return
			}
			<-tick.C
		}
	})
	wg.Go(func() {
		buf := make([]byte, len(block(0)))
		for i := 0; ; i++ {
			switch _, err := io.ReadFull(r, buf); {
			case errors.Is(err, io.EOF):
				close(moved)
				return
			case err != nil:
				failed <- fmt.Errorf("read: %w", err)
				return
			case !bytes.Equal(buf, block(i)):
				failed <- fmt.Errorf("block %d came back as %.16q", i, buf)
				return
			}
			select {
			case moved <- i:
			default:
			}
		}
	})
	// flows waits for a block that is sent from now on.
	flows := func() {
		t.Helper()
		over := time.After(20 * time.Second)
		for range 50 {
			select {
			case <-moved:
			case err := <-failed:
				t.Fatal(err)
			case <-over:
				t.Fatal("the stream stands still")
			}
		}
	}
	flows()
	router.Block(w.front.IP)
	await("relay", "relay-tls")
	flows()
	router.Block()
	await("direct")
	flows()
	cancel()
	for range moved {
	}
	wg.Wait()
	_ = c.Close()
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
}

// testManyStreams counts what ten thousand streams leave in the agents.
func (w *world) testManyStreams(t *testing.T) {
	const streams, atOnce = 10000, 32
	before := w.holds(t)
	var g errgroup.Group
	for i := range atOnce {
		g.Go(func() error {
			for j := i; j < streams; j += atOnce {
				c, r, err := w.connect([]string{"edge-a-gw", "edge-b-gw"}[j%2], 9100)
				if err != nil {
					return fmt.Errorf("stream %d: %w", j, err)
				}
				if j%4 == 0 {
					_ = c.(*net.UnixConn).CloseWrite()
					_, err = io.Copy(io.Discard, r)
				}
				if _ = c.Close(); err != nil {
					return fmt.Errorf("stream %d: %w", j, err)
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	eventually(t, 60*time.Second, "as before", func() error {
		for name, now := range w.holds(t) {
			if now > before[name]+20 {
				return fmt.Errorf("%s was %v, is %v", name, before[name], now)
			}
		}
		return nil
	})
	t.Logf("before %v, after %v", before, w.holds(t))
}

// holds says what the agents hold.
func (w *world) holds(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, name := range []string{"cloud-gw", "edge-a-gw", "edge-b-gw"} {
		a := w.Agent(name)
		m, err := a.Metrics(t.Context())
		must(t, err)
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.Process().PID()))
		must(t, err)
		out[name+" goroutines"], out[name+" streams"], out[name+" descriptors"] = m["go_goroutines"], m["corax_proxy_streams"], float64(len(files))
	}
	return out
}

// testGatewayDies kills the agent of an edge under streams: one at rest, one with
// bytes on their way, and one with TLS to the node. None hangs, and none looks
// complete.
func (w *world) testGatewayDies(t *testing.T) {
	quiet, rq, err := w.connect("edge-b-gw", 9100)
	must(t, err)
	busy, rb, err := w.connect("edge-b-gw", 9100)
	must(t, err)
	raw := w.dial(w.other, w.at(10281))
	_ = raw.SetDeadline(time.Time{})
	secure := tls.Client(raw, &tls.Config{ServerName: "edge-b-gw", RootCAs: w.ca.pool})
	rs := bufio.NewReader(secure)
	if name, err := rs.ReadString('\n'); err != nil || name != "edge-b-gw\n" {
		t.Fatalf("%q: %v", name, err)
	}
	ends := map[string]chan error{}
	for name, r := range map[string]io.Reader{"at rest": rq, "busy": rb, "with TLS": rs} {
		end := make(chan error, 1)
		ends[name] = end
		go func() {
			_, err := io.Copy(io.Discard, r)
			end <- err
		}()
	}
	go func() {
		for {
			if _, err := busy.Write(make([]byte, 16<<10)); err != nil {
				return
			}
		}
	}()
	must(t, w.Agent("edge-b-gw").Kill())
	killed := time.Now()
	for name, end := range ends {
		select {
		case err := <-end:
			t.Logf("%s: ended %v after its gateway node: %v", name, time.Since(killed).Round(time.Second), err)
			if name == "with TLS" && err == nil {
				t.Errorf("%s: looks complete", name)
			}
		case <-time.After(time.Until(killed.Add(deadWithin))):
			t.Errorf("%s: hangs %v after its gateway node", name, time.Since(killed).Round(time.Second))
		}
	}
	for _, c := range []net.Conn{quiet, busy, secure} {
		_ = c.Close()
	}
	started := time.Now()
	if _, _, err := w.connect("edge-b-gw", 9100); err == nil {
		t.Error("a dead gateway node answers")
	} else if r, ok := errors.AsType[*refused](err); !ok || r.status != http.StatusGatewayTimeout {
		t.Errorf("a new stream to a dead gateway node after %v: %v", time.Since(started), err)
	} else if took := time.Since(started); took > 8*time.Second {
		t.Errorf("no answer about a dead gateway node for %v", took)
	}
	must(t, w.Agent("edge-b-gw").Start())
	eventually(t, 30*time.Second, "a restarted gateway node", func() error {
		c, _, err := w.connect("edge-b-gw", 9100)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}
