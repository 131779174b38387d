package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"corax/proxy/outbound"
)

// fakeMaps keeps port maps, and does not listen.
type fakeMaps struct {
	mu sync.Mutex
	m  map[string]outbound.Map
}

func (f *fakeMaps) list() []Forward {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Forward
	for _, m := range f.m {
		out = append(out, Forward{Network: m.Network, Listen: m.Listen.String(), To: fmt.Sprintf("%s:%d", m.Host, m.Port)})
	}
	return out
}

func (f *fakeMaps) add(m outbound.Map) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.m[m.Key()]; ok {
		return outbound.ErrExists
	}
	f.m[m.Key()] = m
	return nil
}

func (f *fakeMaps) remove(m outbound.Map) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.m[m.Key()]; !ok {
		return outbound.ErrNoMap
	}
	delete(f.m, m.Key())
	return nil
}

func TestForwardCommand(t *testing.T) {
	maps := &fakeMaps{m: map[string]outbound.Map{}}
	socket, _ := startLocal(t, &fakeAgent{maps: maps})
	for i, tt := range []struct {
		args   []string
		code   int
		output string // of either kind
	}{
		{[]string{"add", "tcp/8080=10.2.0.9:80"}, exitOK, ""},
		{[]string{"add", "tcp/8080=10.2.0.9:81"}, exitFailed, "there is such a map"},
		{[]string{"add", "tcp/8080"}, exitUsage, "is not tcp|udp/LISTEN=HOST:PORT"},
		{[]string{"add"}, exitUsage, "exactly one port map is needed"},
		{[]string{"list"}, exitOK, "tcp/127.0.0.1:8080   10.2.0.9:80"},
		{[]string{"list", "-o", "json"}, exitOK, `"listen": "127.0.0.1:8080"`},
		{[]string{"list", "-o", "xml"}, exitUsage, "neither table nor json"},
		{[]string{"remove", "udp/8080"}, exitFailed, "there is no such map"},
		{[]string{"remove", "tcp/127.0.0.1:8080"}, exitOK, ""},
		{[]string{"list"}, exitOK, "LISTEN   TO   OPEN   PROBLEM\n"},
	} {
		code, out, problem := corax(t, append(append([]string{"forward"}, tt.args...), "--socket", socket)...)
		if code != tt.code || !strings.Contains(out+problem, tt.output) {
			t.Errorf("step %d, %q: exit code %d, %q, %q", i, tt.args, code, out, problem)
		}
	}
}

func TestNC(t *testing.T) {
	dial := func(_ context.Context, to streamTarget) (net.Conn, error) {
		if to != (streamTarget{"tcp", "pod", 80}) {
			return nil, fmt.Errorf("outbound: %w", syscall.ECONNREFUSED)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return nil, err
		}
		far, err := ln.Accept()
		if err != nil {
			return nil, err
		}
		go func() {
			b, _ := io.ReadAll(far) // until the end of what is said
			_, _ = far.Write(bytes.ToUpper(b))
			_ = far.Close()
		}()
		return c, nil
	}
	socket, stop := startLocal(t, &fakeAgent{connect: dial})
	c := newClient(socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	said := strings.Repeat("said ", 100_000)
	var out bytes.Buffer
	if err := c.Connect(ctx, "pod", "80", strings.NewReader(said), &out); err != nil || out.String() != strings.ToUpper(said) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	if err := c.Connect(ctx, "pod", "81", strings.NewReader(""), &out); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("refused: %v", err)
	}
	if code, _, problem := corax(t, "nc", "pod", "http", "--socket", socket); code != exitUsage || !strings.Contains(problem, "a host and a port are needed") {
		t.Errorf("exit code %d, %q", code, problem)
	}
	// An open stream ends with the agent.
	r, w := io.Pipe()
	defer w.Close()
	ended := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		ended <- c.Connect(ctx, "pod", "80", readerFunc(func(b []byte) (int, error) {
			select {
			case <-begun:
			default:
				close(begun)
			}
			return r.Read(b)
		}), io.Discard)
	}()
	<-begun
	stop()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream lives on")
	}
	if err := c.Connect(ctx, "pod", "80", strings.NewReader(""), &out); err == nil {
		t.Error("an agent that is gone answers")
	} else if e, ok := errors.AsType[*exitError](err); !ok || e.code != exitNoAgent {
		t.Errorf("without an agent: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
