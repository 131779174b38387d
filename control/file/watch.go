package file

import (
	"os"

	"github.com/fsnotify/fsnotify"
)

// watch keeps a watcher on the directory that a path leads to now. The kernel
// watches the directory itself: after it was replaced by another one of the
// same name, nothing would be heard of that.
type watch struct {
	watcher *fsnotify.Watcher // nil: no watching
	path    string
	on      os.FileInfo // nil: not watching
}

// renew watches again when the path leads somewhere else. Failing that, the
// regular rescan has to do.
func (w *watch) renew() {
	if w.watcher == nil {
		return
	}
	now, err := os.Stat(w.path)
	if err == nil && w.on != nil && os.SameFile(now, w.on) {
		return
	}
	if w.on != nil {
		_ = w.watcher.Remove(w.path) // gone already when the directory is
		w.on = nil
	}
	if err == nil && w.watcher.Add(w.path) == nil {
		w.on = now
	}
}
