package nat

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/stream"
)

const (
	dialTimeout  = 15 * time.Second
	firstRedial  = 200 * time.Millisecond // a hub that just starts
	lastRedial   = time.Minute
	streamSilent = 5 * time.Second // a hub not heard for so long is dialled
)

// dialers are our ends of TLS streams to hubs: one to the first hub, ready for
// the moment in which UDP is blocked, and one to each hub that UDP does not
// reach.
type dialers struct {
	agent  *Agent
	counts stream.Counts
	start  chan func(context.Context)
	once   sync.Once
	last   uint64 // number of the last stream; the loop's
}

func (d *dialers) channel() chan func(context.Context) {
	d.once.Do(func() { d.start = make(chan func(context.Context), 16) })
	return d.start
}

// run is the owner of every goroutine that dials or carries a stream.
func (d *dialers) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.channel():
			wg.Go(func() { f(ctx) })
		}
	}
}

// dialling is the loop's state of the stream to one hub.
type dialling struct {
	busy bool
	next time.Time
	wait time.Duration
	err  error
}

// dial opens the streams that are missing.
func (a *Agent) dial(now time.Time) {
	for i, h := range a.hubs {
		if h.TLS == "" || a.plan.Self.Hub || h.conn != nil || h.dialling.busy || now.Before(h.dialling.next) {
			continue
		}
		reached := h.answered && h.way.Kind == path.Direct && now.Sub(latest(h.last.Heard, h.carried.Heard)) < streamSilent
		if i > 0 && (reached || h.way.Kind == path.Direct && !h.unsure && h.answered) {
			continue
		}
		a.dialHub(h)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (a *Agent) dialHub(h *peer) {
	addr, k := h.TLS, h.Key
	job := func(ctx context.Context) {
		dctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := stream.Dial(dctx, stream.DialConfig{
			Private: a.cfg.Private, Hub: k, Addr: addr, Counts: &a.dialers.counts,
			Receive: func(c *stream.Conn, datagrams [][]byte) {
				if t := a.tunnel.Load(); t != nil {
					(*t).Inject(c.Peer(), c, datagrams)
				}
			},
		})
		if err != nil {
			a.post(ctx, func() { a.dialFailed(k, err) })
			return
		}
		a.post(ctx, func() { a.dialled(k, addr, conn) })
		err = conn.Run(ctx)
		a.post(ctx, func() { a.streamEnded(k, conn, err) })
	}
	select {
	case a.dialers.channel() <- job:
		h.dialling.busy = true
	default: // all are busy starting: in a second again
	}
}

func (a *Agent) dialFailed(k key.Public, err error) {
	h := a.peers[k]
	if h == nil {
		return
	}
	d := &h.dialling
	if d.err == nil || d.err.Error() != err.Error() {
		a.log.Info("the TLS fallback of a hub does not answer", "gateway", h.Gateway, "node", h.Node, "err", err)
	}
	d.busy, d.err = false, err
	d.wait = min(max(2*d.wait, firstRedial), lastRedial)
	d.next = time.Now().Add(d.wait)
}

func (a *Agent) dialled(k key.Public, addr string, conn *stream.Conn) {
	h := a.peers[k]
	if h == nil || h.TLS != addr || h.conn != nil {
		conn.Close()
		return
	}
	a.dialers.last++
	h.conn, h.number = conn, a.dialers.last
	h.dialling = dialling{busy: true}
	a.offer(h)
}

func (a *Agent) streamEnded(k key.Public, conn *stream.Conn, err error) {
	if t := a.tunnel.Load(); t != nil {
		(*t).EndStream(conn)
	}
	h := a.peers[k]
	if h == nil {
		return
	}
	h.dialling.busy = false
	if h.conn != conn {
		return
	}
	why := "the stream was closed"
	if err != nil {
		why = err.Error()
	}
	number := h.number
	h.conn = nil
	a.offer(h)
	a.step(h, path.Lost{Way: path.Way{Kind: path.Stream, Stream: number}, Why: why})
	h.dialling.wait = min(max(2*h.dialling.wait, firstRedial), lastRedial)
	h.dialling.next = time.Now().Add(h.dialling.wait)
}

// closeStream ends the stream to a hub; it is dialled again when it is wanted.
func (a *Agent) closeStream(p *peer) {
	if p.conn != nil {
		p.conn.Close()
	}
	p.dialling.next, p.dialling.wait = time.Time{}, 0
}

// server is a hub's end of streams. It listens while this node is one.
type server struct {
	agent  *Agent
	wanted atomic.Bool
	news   chan struct{} // wanted changed
	counts stream.Counts
	err    atomic.Pointer[error]
	open   atomic.Pointer[stream.Server] // nil: none listens
}

// recheck closes the streams of who may have none any more.
func (s *server) recheck() {
	if srv := s.open.Load(); srv != nil {
		srv.Recheck()
	}
}

func (s *server) want(on bool) {
	if s.wanted.Swap(on) == on {
		return
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// listenAgain is when a port that was taken is tried again.
const listenAgain = 5 * time.Second

// run opens and closes the listener as wanted.
func (s *server) run(ctx context.Context) error {
	for ctx.Err() == nil {
		again := (<-chan time.Time)(nil)
		if s.wanted.Load() && s.agent.cfg.Listen != nil {
			s.serve(ctx)
			again = time.After(listenAgain)
		}
		select {
		case <-ctx.Done():
		case <-s.news:
		case <-again:
		}
	}
	return nil
}

// serve accepts streams until ctx ends or this node is no hub any more.
func (s *server) serve(ctx context.Context) {
	a := s.agent
	fail := func(err error) {
		if was := s.err.Load(); was == nil || (*was).Error() != err.Error() {
			a.log.Warn("no TLS fallback is served", "err", err)
		}
		s.err.Store(&err)
	}
	l, err := a.cfg.Listen()
	if err != nil {
		fail(err)
		return
	}
	srv, err := stream.New(stream.Config{
		Log: a.cfg.Log, Private: a.cfg.Private, Listener: l, Counts: &s.counts, Known: a.knows, Allowed: a.cfg.Allowed,
		Receive: func(c *stream.Conn, datagrams [][]byte) {
			if t := a.tunnel.Load(); t != nil {
				(*t).Inject(c.Peer(), c, datagrams)
			}
		},
		Closed: func(c *stream.Conn) {
			if t := a.tunnel.Load(); t != nil {
				(*t).EndStream(c)
			}
		},
	})
	if err != nil {
		_ = l.Close()
		fail(err)
		return
	}
	s.err.Store(nil)
	s.open.Store(srv)
	defer s.open.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for s.wanted.Load() {
			select {
			case <-ctx.Done():
				return
			case <-s.news:
			}
		}
		cancel()
	})
	if err := srv.Run(ctx); err != nil {
		fail(err)
	}
}

// knows reports whether a key is that of a peer that may have a stream.
func (a *Agent) knows(k key.Public) bool {
	named, ok := (*a.named.Load())[k.Overlay()]
	return ok && named == k
}
