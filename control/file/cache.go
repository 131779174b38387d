package file

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/control/internal/statefile"
)

const (
	// CacheFile is the name, in Config.Cache, of what is in force.
	CacheFile = "gateways.json"
	// maxCache bounds it, in bytes.
	maxCache = 64 << 20
)

// cache keeps on disk what is in force of each file, for a start at which a file
// is broken. The zero value keeps nothing.
type cache struct {
	dir   string
	saved [sha256.Size]byte // of what is on disk; zero when that is not known
}

// cached is the document on disk.
type cached struct {
	Dir   string       `json:"dir"` // what it is of
	Files []cachedFile `json:"files"`
}

type cachedFile struct {
	Name    string         `json:"name"`
	Objects []cachedObject `json:"objects"`
}

type cachedObject struct {
	Source   string            `json:"source"`
	Gateway  v1beta1.Gateway   `json:"gateway"`
	Problems []control.Problem `json:"problems,omitempty"`
}

// load returns what was in force of dir when the last agent ended; nothing
// without a cache, or when it is another directory's. What a damaged cache holds is lost, and the error says so.
func (c *cache) load(dir string) (map[string]*version, error) {
	if c.dir == "" {
		return nil, nil
	}
	c.file().Sweep()
	b, err := c.file().Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var doc cached
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.file().Path(), err)
	}
	if doc.Dir != dir {
		return nil, nil
	}
	c.saved = sha256.Sum256(b)
	files := map[string]*version{}
	for _, f := range doc.Files {
		if v := f.version(); len(v.objects) > 0 && len(files) < maxFiles {
			files[f.Name] = v
		}
	}
	return files, nil
}

// version returns the objects of a file as something to fall back on: sum is not
// known, so the file is read whatever it holds now.
func (f cachedFile) version() *version {
	v := new(version)
	for _, o := range f.Objects {
		if v1beta1.CheckName(o.Gateway.Metadata.Name) == nil && len(v.objects) < MaxObjects {
			v.objects = append(v.objects, object{gateway: o.Gateway, source: o.Source, problems: o.Problems})
		}
	}
	return v
}

// save writes what is in force, unless that is on disk already.
func (c *cache) save(dir string, files map[string]*version) error {
	if c.dir == "" {
		return nil
	}
	b, err := encode(dir, files)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	if sum == c.saved {
		return nil
	}
	if err := c.file().Write(b); err != nil {
		return err
	}
	c.saved = sum
	return nil
}

func encode(dir string, files map[string]*version) ([]byte, error) {
	doc := cached{Dir: dir, Files: []cachedFile{}}
	for _, name := range sortedNames(files) {
		f := cachedFile{Name: name}
		for _, o := range files[name].objects {
			f.Objects = append(f.Objects, cachedObject{Source: o.source, Gateway: o.gateway, Problems: o.problems})
		}
		if len(f.Objects) > 0 {
			doc.Files = append(doc.Files, f)
		}
	}
	return json.Marshal(doc)
}

func (c *cache) file() statefile.File {
	return statefile.File{Dir: c.dir, Name: CacheFile, Max: maxCache}
}
