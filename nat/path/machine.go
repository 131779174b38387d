package path

import "time"

// Inner MTUs in bytes.
const (
	BaseMTU = 1360 // assumed until probed
	minMTU6 = 1280
)

// Machine is the state of one peer. It is not safe for concurrent use.
type Machine struct{}

// New returns an idle Machine.
func New(cfg Config) *Machine { return &Machine{} }

// Step takes in one event and returns what is to be done. The slice is valid
// until the next Step.
func (m *Machine) Step(now time.Time, ev Event) []Action { return nil }

// Deadline returns when Step wants a Tick; zero: not before another event.
func (m *Machine) Deadline() time.Time { return time.Time{} }

// Status returns a snapshot.
func (m *Machine) Status() Status { return Status{} }
