package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/dataplane"
	"corax/proxy"
	"corax/proxy/outbound"
	"corax/proxy/splice"
)

// agentAPI is what the local API and the listeners ask of the agent. All funcs
// may be called from several goroutines at once.
type agentAPI struct {
	Status func() Status
	// Ping sends n echo requests, one a second, to a peer's Gateway, its node
	// or an IP address; n 0 means until ctx ends. It calls reply, which does
	// not block for long, once per request, in order. An unknown target is
	// errNoTarget.
	Ping func(ctx context.Context, target string, n int, reply func(PingReply)) error
	// Paths tells of the ways to a peer, named like the target of a ping. An
	// unknown one is errNoTarget. Nil: not available.
	Paths func(name string) (Paths, error)
	// Netcheck looks at the network around this node, for maxNetcheck at most.
	// Nil: not available.
	Netcheck func(ctx context.Context) (Netcheck, error)
	// Forwards are the port maps; AddForward and RemoveForward change them. Nil: not
	// available.
	Forwards                  func() []Forward
	AddForward, RemoveForward func(outbound.Map) error
	// Connect dials what a stream is asked for. Nil: not available.
	Connect func(ctx context.Context, t streamTarget) (net.Conn, error)
	// Streams are those of proxy mode that are open. Nil: not available.
	Streams func() ProxyStreams
	// Probe dials a port of a node as a front does. Nil: not available.
	Probe func(ctx context.Context, node string, port uint16) ProxyProbe
	// Proxied are the counters of proxy mode that have more than a reason. Nil: there
	// are none.
	Proxied func() proxy.Counts
	// Ready reports whether the agent does its work, and if not, why.
	Ready    func() (bool, []string)
	Counters func() []dataplane.Counter
}

// errNoTarget says that a question names nothing that the agent knows.
var errNoTarget = errors.New("no peer, node or address of that name")

// local serves what an agent tells of itself: the API on its unix socket, health
// and metrics on TCP.
type local struct {
	agent  agentAPI
	socket net.Listener
	tcp    []*tcpListener
	log    *slog.Logger

	pool    splice.Pool    // of streams of the API
	open    atomic.Int32   // how many there are
	streams sync.WaitGroup // joined by Run: for a server they are none of its own
}

// newLocal opens the socket; it fails when another agent lives there. The TCP
// listeners are opened by Run, since the agent does without them.
func newLocal(cfg agentConfig, agent agentAPI, log *slog.Logger) (*local, error) {
	socket, err := listenSocket(cfg.Socket)
	if err != nil {
		return nil, err
	}
	l := &local{agent: agent, socket: socket, log: log}
	l.tcp = []*tcpListener{
		{name: "health", addr: cfg.HealthAddr, handler: l.health(), log: log},
		{name: "metrics", addr: cfg.MetricsAddr, handler: l.metrics(), log: log},
	}
	return l, nil
}

// Close gives up a local whose Run is never called. After Run it does nothing.
func (l *local) Close() error { return l.socket.Close() }

// Run serves until ctx ends.
func (l *local) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, l.socket, l.api(), withPeer) })
	for _, t := range l.tcp {
		g.Go(func() error { return t.Run(ctx) })
	}
	err := g.Wait()
	l.streams.Wait()
	return err
}

// status is the agent's status with what the listeners know.
func (l *local) status() Status {
	s := l.agent.Status()
	s.Problems = slices.Clone(s.Problems)
	for _, t := range l.tcp {
		if p := t.Problem(); p != "" {
			s.Problems = append(s.Problems, p)
		}
	}
	return s.complete()
}

// Limits on who talks to the agent. Answers take far less than maxAnswer; a
// stream sets its own deadline.
const (
	maxRequest = 5 * time.Second
	maxAnswer  = 30 * time.Second
	maxIdle    = 2 * time.Minute
	maxHeader  = 16 << 10 // bytes
	// maxNetcheck is how long the agent may look at its network. It leaves time
	// to answer within maxAnswer.
	maxNetcheck = 20 * time.Second
)

// serve answers requests on ln until ctx ends, then closes ln and joins what it
// started. Requests see ctx end too.
func serve(ctx context.Context, ln net.Listener, h http.Handler, conn func(context.Context, net.Conn) context.Context) error {
	s := &http.Server{
		Handler:        h,
		ReadTimeout:    maxRequest,
		WriteTimeout:   maxAnswer,
		IdleTimeout:    maxIdle,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext:    conn,
	}
	var g errgroup.Group
	done, cancel := context.WithCancel(ctx)
	g.Go(func() error {
		<-done.Done()
		// Requests end by themselves: ctx is theirs.
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		if s.Shutdown(end) != nil {
			return s.Close()
		}
		return nil
	})
	err := s.Serve(ln)
	cancel()
	_ = g.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
