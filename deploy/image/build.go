package main

import (
	"errors"
	"fmt"
	"time"
)

// config is the image's configuration.
type config struct {
	Created      string   `json:"created"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant,omitempty"`
	OS           string   `json:"os"`
	Config       settings `json:"config"`
	RootFS       rootFS   `json:"rootfs"`
	History      []made   `json:"history"`
}

type settings struct {
	User       string            `json:"User"`
	Env        []string          `json:"Env"`
	Entrypoint []string          `json:"Entrypoint"`
	WorkingDir string            `json:"WorkingDir"`
	Labels     map[string]string `json:"Labels"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type made struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// build makes one image per program, and an index of them.
func build(programs []*program, version string) (*layout, error) {
	if len(programs) == 0 {
		return nil, errors.New("no program")
	}
	l := &layout{blobs: map[string][]byte{}, time: programs[0].time}
	base, baseID, err := layer(system(), l.time)
	if err != nil {
		return nil, fmt.Errorf("files of the system: %w", err)
	}
	all := index{SchemaVersion: 2, MediaType: typeIndex, Annotations: about(programs[0], version)}
	for _, p := range programs {
		d, err := l.addImage(p, version, base, baseID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		all.Manifests = append(all.Manifests, d)
	}
	l.index, err = l.addJSON(typeIndex, all)
	return l, err
}

// addImage adds the image of one architecture.
func (l *layout) addImage(p *program, version string, base []byte, baseID string) (descriptor, error) {
	top, topID, err := layer([]file{
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: binary, mode: 0o755, content: p.content},
	}, p.time)
	if err != nil {
		return descriptor{}, err
	}
	created := p.time.Format(time.RFC3339)
	c, err := l.addJSON(typeConfig, config{
		Created: created, Architecture: p.arch, Variant: p.variant, OS: "linux",
		Config: settings{
			User: user, Env: []string{"PATH=/usr/bin"}, Entrypoint: []string{"/" + binary}, WorkingDir: "/",
			Labels: about(p, version),
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{baseID, topID}},
		History: []made{{created, "certificate authorities, users, folders"}, {created, "/" + binary}},
	})
	if err != nil {
		return descriptor{}, err
	}
	d, err := l.addJSON(typeManifest, manifest{
		SchemaVersion: 2, MediaType: typeManifest, Config: c,
		Layers: []descriptor{l.add(typeLayer, base), l.add(typeLayer, top)},
	})
	d.Platform = &platform{Architecture: p.arch, OS: "linux", Variant: p.variant}
	return d, err
}

// about returns the annotations that tell people what the image is.
func about(p *program, version string) map[string]string {
	m := map[string]string{
		"org.opencontainers.image.title":       "corax",
		"org.opencontainers.image.description": "Connects the network domains of one Kubernetes cluster",
		"org.opencontainers.image.version":     version,
	}
	if p.revision != "" {
		m["org.opencontainers.image.revision"] = p.revision
	}
	return m
}
