package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points at a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// layout is an OCI image layout in memory.
type layout struct {
	blobs map[string][]byte // by digest
	index descriptor        // of the image for all architectures
	time  time.Time
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// add keeps a blob.
func (l *layout) add(mediaType string, b []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(b), Size: int64(len(b))}
	l.blobs[d.Digest] = b
	return d
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, b), nil
}

// write writes the layout as a tar archive, the small entries first, so that a
// reader knows early what it has.
func (l *layout) write(out io.Writer, name, version string) error {
	w := tar.NewWriter(out)
	entry := func(path string, b []byte) error {
		err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(b)), ModTime: l.time, Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	top := l.index
	// The first is read by containerd, the second by everybody else.
	top.Annotations = map[string]string{
		"io.containerd.image.name":          name + ":" + version,
		"org.opencontainers.image.ref.name": version,
	}
	indexJSON, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}})
	if err != nil {
		return err
	}
	if err := entry("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := entry("index.json", indexJSON); err != nil {
		return err
	}
	digests := slices.SortedFunc(maps.Keys(l.blobs), func(a, b string) int {
		if d := len(l.blobs[a]) - len(l.blobs[b]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, d := range digests {
		if err := entry("blobs/sha256/"+strings.TrimPrefix(d, "sha256:"), l.blobs[d]); err != nil {
			return err
		}
	}
	return w.Close()
}
