package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"

	"corax/control"
)

const (
	defaultRescan = 30 * time.Second
	defaultQuiet  = 200 * time.Millisecond
	// awayRescan is how often a directory that is away is looked for, and how
	// soon a cache that could not be written is tried again.
	awayRescan = 2 * time.Second
	// impatience is how many quiet times a scan waits at most, when the
	// directory never becomes quiet.
	impatience = 10
)

// Config is what a Source needs.
type Config struct {
	// Dir is the directory; required.
	Dir string
	// Cache is a directory of ours alone where what is in force is kept, for a
	// start at which a file or the directory cannot be read. Empty means that
	// nothing is kept.
	Cache string
	// Log takes what changes; nil means nothing is logged.
	Log *slog.Logger
	// Update is called with the first snapshot and then with each that differs
	// from the one before, from the goroutine of Run; required. It must not
	// change the snapshot, and may keep it.
	Update func(control.Snapshot)
	// Rescan is how often the directory is read though nothing was heard of it:
	// for symbolic links to other places, and where watching does not work.
	// Zero means 30 s.
	Rescan time.Duration
	// Quiet is how long the directory must be without change before it is read.
	// Zero means 200 ms.
	Quiet time.Duration
}

// Source watches a directory of Gateway objects. See the package documentation
// for the rules.
type Source struct {
	cfg Config
	log *slog.Logger
	dir directory

	last   control.Snapshot
	begun  bool
	events <-chan fsnotify.Event // nil without a watcher
	errs   <-chan error
}

// New checks that the directory is there. It starts nothing.
func New(cfg Config) (*Source, error) {
	if cfg.Update == nil {
		return nil, errors.New("file: no Update function")
	}
	info, err := os.Stat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("file: gateway directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("file: gateway directory: %s is not a directory", cfg.Dir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rescan <= 0 {
		cfg.Rescan = defaultRescan
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = defaultQuiet
	}
	s := &Source{cfg: cfg, log: cfg.Log.With("component", "gateways"), dir: directory{path: cfg.Dir, cache: cache{dir: cfg.Cache}, dirty: true}}
	if s.dir.files, err = s.dir.cache.load(cfg.Dir); err != nil {
		s.log.Warn("what the last start knew of the gateway objects is lost", "err", err)
	}
	return s, nil
}

// Run reads the directory and calls Update, until ctx is done; then it returns
// nil. It does not fail: while the directory is away the last state stays, and
// the snapshot says so.
func (s *Source) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Warn("the gateway directory cannot be watched, it is read from time to time", "interval", s.cfg.Rescan, "err", err)
	} else {
		defer w.Close()
		s.events, s.errs = w.Events, w.Errors
	}
	watched := watch{watcher: w, path: s.cfg.Dir}
	for {
		// First watch, then read: what changes in between is heard of.
		watched.renew()
		s.scan()
		if !s.wait(ctx) {
			return nil
		}
	}
}

func (s *Source) rescan() time.Duration {
	if s.dir.away != nil || s.dir.full != nil {
		return min(s.cfg.Rescan, awayRescan)
	}
	return s.cfg.Rescan
}

// wait returns true when the directory should be read again.
func (s *Source) wait(ctx context.Context) bool {
	rescan := time.NewTimer(s.rescan())
	defer rescan.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-rescan.C:
		return true
	case <-s.errs: // events were lost
	case <-s.events:
	}
	quiet := time.NewTimer(s.cfg.Quiet)
	defer quiet.Stop()
	enough := time.NewTimer(impatience * s.cfg.Quiet)
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-quiet.C:
			return true
		case <-enough.C:
			return true
		case <-s.errs:
			quiet.Reset(s.cfg.Quiet)
		case <-s.events:
			quiet.Reset(s.cfg.Quiet)
		}
	}
}

// scan reads the directory and tells when the result is new.
func (s *Source) scan() {
	s.dir.read()
	if s.dir.away != nil && !s.begun && len(s.dir.files) == 0 {
		// Nothing is known, which is not the same as knowing that nothing is
		// wanted: what a dead agent left to keep packets in must stay.
		s.log.Warn("the gateway directory cannot be read yet", "err", s.dir.away)
		return
	}
	s.tell()
	s.dir.keep() // the agent need not wait for the disk
	s.tell()
}

// tell calls Update when what is in force, or what is wrong, has changed.
func (s *Source) tell() {
	now := s.dir.snapshot()
	if s.begun && now.Equal(s.last) {
		return
	}
	s.logChange(now)
	s.begun, s.last = true, now
	s.cfg.Update(now)
}

// logChange logs the problems that came and went.
func (s *Source) logChange(now control.Snapshot) {
	before, after := problemSet(s.last.Problems), problemSet(now.Problems)
	for _, p := range now.Problems {
		if !before[p] {
			s.log.Warn("problem in the gateway objects", "problem", p.String())
		}
	}
	for _, p := range s.last.Problems {
		if !after[p] {
			s.log.Info("problem in the gateway objects is gone", "problem", p.String())
		}
	}
	s.log.Info("gateway objects read", "gateways", len(now.Gateways), "problems", len(now.Problems))
}

func problemSet(ps []control.Problem) map[control.Problem]bool {
	set := make(map[control.Problem]bool, len(ps))
	for _, p := range ps {
		set[p] = true
	}
	return set
}
