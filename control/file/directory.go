package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"corax/control"
)

// maxFiles bounds the files of a directory.
const maxFiles = 4096

// directory is what the files said when they were last readable. The zero value
// with a path is ready.
type directory struct {
	path  string
	files map[string]*version
	away  error // why the directory cannot be read; nil when it can
	many  bool  // some files were left out
	cache cache
	dirty bool  // the cache may not be what is in force
	full  error // why the cache could not be written; nil when it could
}

// version is one file: what is in force of it, and what is wrong with it.
type version struct {
	sum      [sha256.Size]byte
	known    bool // sum is of the contents that were read last
	objects  []object
	problems []control.Problem
}

// read reads what changed.
func (d *directory) read() {
	var names []string
	names, d.many, d.away = listFiles(d.path)
	if d.away != nil {
		return
	}
	if d.files == nil {
		d.files = map[string]*version{}
	}
	for name := range d.files {
		if !slices.Contains(names, name) {
			delete(d.files, name)
			d.dirty = true
		}
	}
	for _, name := range names {
		v := d.files[name]
		if v == nil {
			v = new(version)
		}
		path := filepath.Join(d.path, name)
		data, err := readFile(path)
		if err != nil && removed(path) {
			delete(d.files, name)
			d.dirty = true
			continue
		}
		d.files[name] = v
		if err != nil {
			v.fail(name, err)
			continue
		}
		if v.take(name, data) {
			d.dirty = true
		}
	}
}

// keep writes what is in force to the cache, when it has changed or could not be
// written the last time. While the directory is away there is nothing to say.
func (d *directory) keep() {
	if d.away != nil || !d.dirty {
		return
	}
	d.full = d.cache.save(d.path, d.files)
	d.dirty = d.full != nil
}

// listFiles returns the names that count, sorted.
func listFiles(dir string) (names []string, many bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || e.IsDir() {
			continue
		}
		switch filepath.Ext(name) {
		case ".yaml", ".yml", ".json":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > maxFiles {
		return names[:maxFiles], true, nil
	}
	return names, false, nil
}

// readFile reads a regular file, at most one byte more than is allowed.
func readFile(path string) ([]byte, error) {
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// removed reports whether the name itself is gone, unlike the file that a
// symbolic link leads to.
func removed(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// fail keeps what is in force.
func (v *version) fail(name string, err error) {
	v.known = false
	v.problems = []control.Problem{{
		Object: "file/" + name, Message: "cannot be read: " + cause(err), Source: name,
	}}
}

// take puts a version of the file in force, as far as it is good, and reports
// whether it is a new one.
func (v *version) take(name string, data []byte) bool {
	sum := sha256.Sum256(data)
	if v.known && sum == v.sum {
		return false
	}
	now := decodeFile(name, data)
	if len(now.problems) > 0 {
		now.objects = append(now.objects, missing(v.objects, now.objects)...)
	}
	*v = version{sum: sum, known: true, objects: now.objects, problems: now.problems}
	return true
}

// missing returns the objects of old whose names are not in now.
func missing(old, now []object) []object {
	names := map[string]bool{}
	for i := range now {
		names[now[i].gateway.Metadata.Name] = true
	}
	var left []object
	for i := range old {
		if !names[old[i].gateway.Metadata.Name] {
			left = append(left, old[i])
		}
	}
	return left
}

// snapshot puts the files together. Of two that define one Gateway the first by
// name counts.
func (d *directory) snapshot() control.Snapshot {
	s := control.Snapshot{EnableTunnel: true, EnableProxy: true}
	first := make(map[string]string, len(d.files))
	s.Gateways = slices.Grow(s.Gateways, len(d.files))
	for _, name := range sortedNames(d.files) {
		v := d.files[name]
		s.Problems = append(s.Problems, v.problems...)
		for i := range v.objects {
			o := &v.objects[i]
			gateway := o.gateway.Metadata.Name
			if source, ok := first[gateway]; ok {
				s.Problems = append(s.Problems, control.Problem{
					Object: "file/" + name, Field: "metadata.name", Source: o.source,
					Message: fmt.Sprintf("gateway %s is already defined in %s; this one is left out", gateway, source),
				})
				continue
			}
			first[gateway] = o.source
			s.Gateways = append(s.Gateways, o.gateway)
			s.Problems = append(s.Problems, o.problems...)
		}
	}
	if d.away != nil {
		s.Problems = append(s.Problems, control.Problem{
			Object: "file/" + d.path, Message: "the directory cannot be read, its last state stays: " + cause(d.away),
		})
	}
	if d.full != nil {
		s.Problems = append(s.Problems, control.Problem{
			Object: "file/" + CacheFile, Message: "cannot be written to " + d.cache.dir + ", so an agent that starts while a file is broken does not know its Gateways: " + cause(d.full),
		})
	}
	if d.many {
		s.Problems = append(s.Problems, control.Problem{
			Object: "file/" + d.path, Message: fmt.Sprintf("more than %d files; the last by name are left out", maxFiles),
		})
	}
	sort.Slice(s.Gateways, func(i, j int) bool {
		return s.Gateways[i].Metadata.Name < s.Gateways[j].Metadata.Name
	})
	s.Problems = control.SortProblems(s.Problems)
	return s
}

func sortedNames(files map[string]*version) []string {
	return slices.Sorted(maps.Keys(files))
}

// cause drops the path from a file error: the problem names it.
func cause(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
