package front

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"corax/proxy"
	"corax/proxy/splice"
)

// retryEvery is how often a listener that could not be opened is tried again.
const retryEvery = 5 * time.Second

// Front takes requests for nodes. [New] makes one and [Front.Run] runs it;
// everything else may be called by any goroutine, also before Run.
type Front struct {
	cfg     Config
	log     *slog.Logger
	audit   *slog.Logger
	reviews *reviews // nil: nobody is asked
	table   atomic.Pointer[table]
	changed chan struct{} // room for one: the plan is another
	pending *gate
	web     *http.Server
	buffers bufferPool
	queue   *connQueue
	backend http.RoundTripper
	pool    *splice.Pool
	lines   *rate.Limiter // of audit lines about what was refused

	unwritten atomic.Uint64 // audit lines left out

	mu        sync.Mutex
	plan      Plan
	listeners []Listener
	last      uint64
	cancels   map[uint64]context.CancelCauseFunc // of the open streams
}

// New makes a Front that listens nowhere.
func New(cfg Config) (*Front, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Front{
		cfg:     cfg,
		log:     log.With("component", "front"),
		audit:   log.With("component", "audit"),
		changed: make(chan struct{}, 1),
		pending: newGate(cfg.MaxPending),
		queue:   newConnQueue(),
		pool:    cfg.Pool,
		lines:   rate.NewLimiter(10, 50),
		cancels: map[uint64]context.CancelCauseFunc{},
	}
	if f.pool == nil {
		f.pool = new(splice.Pool)
	}
	if cfg.Auth != nil {
		f.reviews = newReviews(cfg.Auth)
	}
	f.table.Store(newTable(Plan{}))
	f.web = f.newWeb()
	f.backend = newBackend()
	return f, nil
}

// Apply makes a plan the present one, and returns at once. New streams see its
// nodes from then on; its listeners are opened, and those that it lacks closed, by
// Run. Other listeners go on undisturbed, also when only the node port behind them
// is another.
func (f *Front) Apply(p Plan) {
	f.mu.Lock()
	f.plan = p
	f.mu.Unlock()
	f.table.Store(newTable(p))
	if p.End {
		f.endStreams()
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Listeners returns the listeners of the present plan, as Run has them.
func (f *Front) Listeners() []Listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Listener(nil), f.listeners...)
}

// Run serves until ctx ends, then ends all streams, waits for them and returns nil.
func (f *Front) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer cancel()
	// Connections that wait for the web server end with ctx, so it does first.
	g.Go(func() { f.serveWeb(ctx) })
	s := sockets{front: f, group: &g, open: map[socketKey]*socket{}}
	defer s.closeAll()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		f.mu.Lock()
		plan := f.plan
		f.mu.Unlock()
		list := s.follow(ctx, plan.wants(f.reviews != nil))
		f.mu.Lock()
		f.listeners = list
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
		case <-retry.C:
		}
	}
}

// streamContext returns a context that ends with parent, by done, or when a plan
// ends the open streams. Whoever looks up a node does so afterwards: then a plan that
// ends streams either has no such node, or ends this one.
func (f *Front) streamContext(parent context.Context) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(parent)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	id := f.last
	f.cancels[id] = cancel
	return ctx, func() {
		f.mu.Lock()
		delete(f.cancels, id)
		f.mu.Unlock()
		cancel(nil)
	}
}

func (f *Front) endStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, cancel := range f.cancels {
		cancel(proxy.Refuse(proxy.CodeOff, "proxy mode was switched off"))
	}
}
