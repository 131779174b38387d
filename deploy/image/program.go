package main

import (
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"time"
)

// program is a static Go program for Linux, as its build information tells.
type program struct {
	path     string
	content  []byte
	arch     string // GOARCH
	variant  string // of arm: v5, v6 or v7
	revision string // of the source; empty when the build did not note it
	time     time.Time
}

// openProgram reads a program and checks that it runs in an image without
// libraries.
func openProgram(path string) (*program, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p := &program{path: path, content: content, time: time.Unix(0, 0).UTC()}
	goos := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			goos = s.Value
		case "GOARCH":
			p.arch = s.Value
		case "GOARM":
			p.variant = "v" + s.Value[:1]
		case "vcs.revision":
			p.revision = s.Value
		case "vcs.time":
			if p.time, err = time.Parse(time.RFC3339, s.Value); err != nil {
				return nil, fmt.Errorf("%s: time of the commit: %w", path, err)
			}
		}
	}
	switch p.arch {
	case "arm64":
		p.variant = "v8"
	case "arm":
	default:
		p.variant = ""
	}
	if goos != "linux" {
		return nil, fmt.Errorf("%s: built for %s, not for linux", path, goos)
	}
	return p, p.checkStatic()
}

// checkStatic refuses a program that asks for an interpreter: the image has none.
func (p *program) checkStatic() error {
	f, err := elf.Open(p.path)
	if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	defer func() { _ = f.Close() }()
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			return fmt.Errorf("%s: linked dynamically; build it with CGO_ENABLED=0", p.path)
		}
	}
	return nil
}
