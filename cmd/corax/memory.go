package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"corax/control"
	"corax/dataplane/key"
)

// memoryFile is where an agent keeps what the next start needs at once.
const memoryFile = "memory.json"

// maxMemory bounds the file, in bytes.
const maxMemory = 1 << 20

// memory is what one start of the agent leaves to the next, in the state
// directory: where each peer was last proven to be, so that a handshake can go
// there at once, and the latest clock reading, since a peer refuses handshakes
// whose timestamp is not newer than the last. It is a hint: a missing or
// damaged file costs time, nothing else.
type memory struct {
	// Clock is the latest time that handshakes may have carried.
	Clock time.Time `json:"clock"`
	// Proven holds the last proven address by public key.
	Proven map[key.Public]netip.AddrPort `json:"proven"`
	// Claim is this node's own; nil: it has none.
	Claim *savedClaim `json:"claim,omitempty"`
}

// savedClaim is a claim, and what the Gateway object said when it was made.
type savedClaim struct {
	Claim  control.Claim `json:"claim"`
	Epoch  uint64        `json:"epoch"`
	Active []string      `json:"active"`
	At     time.Time     `json:"at"` // when it was in force last
}

// loadMemory reads the file of dir. Without a file it returns the zero memory.
func loadMemory(dir string) (memory, error) {
	var m memory
	path := filepath.Join(dir, memoryFile)
	sweep(dir, memoryFile, time.Now())
	b, _, err := readRegular(path, maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return memory{}, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

// save writes the file: a new one beside it, then a rename, so that a crash or
// a full disk leaves the old one whole.
func (m memory) save(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", memoryFile, err)
	}
	path := filepath.Join(dir, memoryFile)
	f, err := os.CreateTemp(dir, memoryFile+".*")
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// clockBehind says by how much now is behind the clock that earlier handshakes
// used; zero when it is not.
func (m memory) clockBehind(now time.Time) time.Duration {
	return max(0, m.Clock.Sub(now))
}
