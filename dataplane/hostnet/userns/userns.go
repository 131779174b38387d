package userns

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"syscall"

	"corax/dataplane"
)

// Config says whose network namespace is entered, and what is made there.
type Config struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// Namespace is the number of a process that is in the network namespace, or the
	// path of a file that stands for it. The namespace belongs to a child of this
	// process's user namespace.
	Namespace string
	// Env is the further environment of the helper, NAME=value. The helper is this
	// program: main must call [Serve] when [IsHelper] says so.
	Env []string
	// Stderr takes what the helper writes there; nil means nobody.
	Stderr *os.File

	// Name of the TUN, its first MTU in bytes, and who takes what is sent through it:
	// see [hostnet.TUNConfig].
	Name    string
	MTU     int
	Receive dataplane.Sender
	// TakeOver and HostSource are those of [hostnet.Config].
	TakeOver   bool
	HostSource []netip.Addr
}

// ErrEnded says that the helper has ended while it was needed.
var ErrEnded = errors.New("userns: the helper in the namespace ended")

// insideError is an error of the helper: its words, and what the system said.
type insideError struct {
	text  string
	errno syscall.Errno
}

// Error implements error.
func (e *insideError) Error() string { return e.text }

// Unwrap returns what the system said.
func (e *insideError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}
