package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/control/internal/statefile"
)

const (
	// CacheFile is the name, in Config.StateDir, of what was known last.
	CacheFile = "cluster.json"
	// maxCache bounds it, in bytes.
	maxCache = 64 << 20
)

// known is the document on disk.
type known struct {
	Saved    time.Time         `json:"saved"`
	Settings settings          `json:"settings,omitempty"`
	Allow    []netip.Prefix    `json:"allow,omitempty"` // in force, whatever Settings says
	Closed   bool              `json:"closed,omitempty"`
	Gateways []v1beta1.Gateway `json:"gateways"`
}

// diskCache keeps on disk what was known last. The zero value keeps nothing.
type diskCache struct{ dir string }

func (c diskCache) file() statefile.File {
	return statefile.File{Dir: c.dir, Name: CacheFile, Max: maxCache}
}

// load returns what was known when the last agent ended; nil when there is nothing.
// What a damaged file holds is lost, and the error says so.
func (c diskCache) load() (*known, error) {
	if c.dir == "" {
		return nil, nil
	}
	c.file().Sweep()
	b, err := c.file().Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	k := new(known)
	if err == nil {
		err = json.Unmarshal(b, k)
	}
	if err == nil && k.Saved.IsZero() {
		err = errors.New("it does not say when it was written")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.file().Path(), err)
	}
	return k, nil
}

// save writes what is known.
func (c diskCache) save(k known) error {
	if c.dir == "" {
		return nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return c.file().Write(b)
}

// gateways returns the Gateways as a store would, with what is wrong with them.
func (k *known) gateways() ([]v1beta1.Gateway, []control.Problem) {
	var problems []control.Problem
	list := slices.DeleteFunc(k.Gateways, func(g v1beta1.Gateway) bool {
		return v1beta1.CheckName(g.Metadata.Name) != nil
	})
	slices.SortStableFunc(list, func(a, b v1beta1.Gateway) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	list = slices.CompactFunc(list, func(a, b v1beta1.Gateway) bool { return a.Metadata.Name == b.Metadata.Name })
	for i := range list {
		problems = append(problems, control.Check(&list[i])...)
	}
	return list, problems
}
