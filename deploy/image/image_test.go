package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// compile builds the program of testdata for an architecture.
func compile(t *testing.T, dir, goos, arch string, flags ...string) {
	t.Helper()
	out := filepath.Join(dir, "corax-linux-"+arch)
	c := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", out}, flags...), "./testdata/hello")...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch, "GOARM=7")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
}

// makeImage runs the command and returns the tar file that it wrote.
func makeImage(t *testing.T, bin, arches string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	var digest bytes.Buffer
	err := run([]string{"-bin", bin, "-arch", arches, "-name", "example/corax", "-version", "v1", "-o", out}, &digest)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(digest.String(), "sha256:") {
		t.Errorf("printed %q, not a digest", digest.String())
	}
	return out
}

// readTar returns the files of a tar archive.
func readTar(t *testing.T, r io.Reader) map[string]tarFile {
	t.Helper()
	files := map[string]tarFile{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		files[h.Name] = tarFile{h, b}
	}
}

type tarFile struct {
	*tar.Header
	content []byte
}

// opened is a layout read back by its digests alone.
type opened struct {
	t     *testing.T
	files map[string]tarFile
}

func open(t *testing.T, path string) opened {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	o := opened{t, readTar(t, f)}
	if got := string(o.files["oci-layout"].content); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", got)
	}
	return o
}

// blob returns what a descriptor points at, and fails unless size and digest fit.
func (o opened) blob(d descriptor) []byte {
	o.t.Helper()
	f, ok := o.files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
	if !ok {
		o.t.Fatalf("no blob %s", d.Digest)
	}
	if got := digest(f.content); got != d.Digest || int64(len(f.content)) != d.Size {
		o.t.Errorf("blob %s: has digest %s and %d bytes, not %d", d.Digest, got, len(f.content), d.Size)
	}
	return f.content
}

func (o opened) decode(b []byte, v any) {
	o.t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		o.t.Fatal(err)
	}
}

// image returns the configuration and the merged file system of an architecture.
func (o opened) image(arch string) (config, map[string]tarFile) {
	o.t.Helper()
	var top, all index
	o.decode(o.files["index.json"].content, &top)
	if len(top.Manifests) != 1 {
		o.t.Fatalf("%d images, not one", len(top.Manifests))
	}
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "example/corax:v1" {
		o.t.Errorf("name %q", got)
	}
	o.decode(o.blob(top.Manifests[0]), &all)
	for _, d := range all.Manifests {
		if d.Platform.Architecture != arch {
			continue
		}
		var m manifest
		o.decode(o.blob(d), &m)
		var c config
		o.decode(o.blob(m.Config), &c)
		if c.Architecture != arch || c.Variant != d.Platform.Variant || c.OS != "linux" {
			o.t.Errorf("%s: the configuration says %s %s %s", arch, c.OS, c.Architecture, c.Variant)
		}
		return c, o.merge(m, c)
	}
	o.t.Fatalf("no image for %s", arch)
	return config{}, nil
}

func (o opened) merge(m manifest, c config) map[string]tarFile {
	o.t.Helper()
	if len(m.Layers) != len(c.RootFS.DiffIDs) || len(m.Layers) != len(c.History) {
		o.t.Fatalf("%d layers, %d digests, %d steps", len(m.Layers), len(c.RootFS.DiffIDs), len(c.History))
	}
	merged := map[string]tarFile{}
	for i, l := range m.Layers {
		z, err := gzip.NewReader(bytes.NewReader(o.blob(l)))
		if err != nil {
			o.t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			o.t.Fatal(err)
		}
		if got := digest(plain); got != c.RootFS.DiffIDs[i] {
			o.t.Errorf("layer %d: digest %s, the configuration says %s", i, got, c.RootFS.DiffIDs[i])
		}
		for name, f := range readTar(o.t, bytes.NewReader(plain)) {
			merged[name] = f
		}
	}
	return merged
}

func TestImage(t *testing.T) {
	bin := t.TempDir()
	arches := []string{"amd64", "arm64", "arm", "riscv64"}
	for _, a := range arches {
		compile(t, bin, "linux", a)
	}
	o := open(t, makeImage(t, bin, strings.Join(arches, ",")))
	variants := map[string]string{}
	for _, a := range arches {
		c, files := o.image(a)
		variants[a] = c.Variant
		if c.Config.User != "65532:65532" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/usr/bin/corax" {
			t.Errorf("%s: user %q, entry point %q", a, c.Config.User, c.Config.Entrypoint)
		}
		want, err := os.ReadFile(filepath.Join(bin, "corax-linux-"+a))
		if err != nil {
			t.Fatal(err)
		}
		p := files["usr/bin/corax"]
		if !bytes.Equal(p.content, want) || p.Mode != 0o755 || p.Uid != 0 {
			t.Errorf("%s: the program is another one, or mode %o, owner %d", a, p.Mode, p.Uid)
		}
		for name, f := range files {
			parent := filepath.Dir(strings.TrimSuffix(name, "/")) + "/"
			if _, ok := files[parent]; parent != "./" && !ok {
				t.Errorf("%s: %s has no folder entry", a, name)
			}
			if f.Mode&0o6000 != 0 {
				t.Errorf("%s: %s has mode %o", a, name, f.Mode)
			}
		}
		if d := files["var/lib/corax/"]; d.Mode != 0o700 || d.Uid != nonroot {
			t.Errorf("%s: the state directory has mode %o, owner %d", a, d.Mode, d.Uid)
		}
	}
	if diff := cmp.Diff(map[string]string{"amd64": "", "arm64": "v8", "arm": "v7", "riscv64": ""}, variants); diff != "" {
		t.Error(diff)
	}
}

// TestAuthorities parses the certificate authorities of the image.
func TestAuthorities(t *testing.T) {
	pem := authorities()
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in it")
	}
	if n := bytes.Count(pem, []byte("BEGIN CERTIFICATE")); n < 50 {
		t.Errorf("only %d authorities", n)
	}
}

// TestSameBytes makes the image twice.
func TestSameBytes(t *testing.T) {
	bin := t.TempDir()
	compile(t, bin, "linux", "amd64")
	first, err := os.ReadFile(makeImage(t, bin, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	// Another time of the file, and another folder, must not show.
	moved := t.TempDir()
	if err := os.Rename(filepath.Join(bin, "corax-linux-amd64"), filepath.Join(moved, "corax-linux-amd64")); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(makeImage(t, moved, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same program gave two different images")
	}
}

// TestRuns unpacks the image and runs its program in it, as its user.
func TestRuns(t *testing.T) {
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		skip(t, "needs root, for chroot")
	}
	bin := t.TempDir()
	compile(t, bin, "linux", runtime.GOARCH)
	_, files := open(t, makeImage(t, bin, runtime.GOARCH)).image(runtime.GOARCH)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, root, files)
	out, err := inChroot(root, nonroot, "/usr/bin/corax").CombinedOutput()
	if err != nil || string(out) != "65532 true\n" {
		t.Errorf("the program said %q, %v", out, err)
	}
}

func unpack(t *testing.T, root string, files map[string]tarFile) {
	t.Helper()
	for name, f := range files {
		at := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if f.Typeflag == tar.TypeDir {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, f.content, f.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// skip says why a test cannot run; where everything must run, it fails.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestRefused(t *testing.T) {
	bin := t.TempDir()
	compile(t, bin, "darwin", "arm64")
	compile(t, bin, "linux", "amd64")
	if err := os.Rename(filepath.Join(bin, "corax-linux-amd64"), filepath.Join(bin, "corax-linux-riscv64")); err != nil {
		t.Fatal(err)
	}
	compile(t, bin, "linux", "amd64", "-buildmode=pie")
	if err := os.WriteFile(filepath.Join(bin, "corax-linux-arm"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, arch, want string }{
		{"missing", "s390x", "no such file"},
		{"no Go program", "arm", "could not read Go build info"},
		{"another system", "arm64", "built for darwin"},
		{"needs a loader", "amd64", "linked dynamically"},
		{"another architecture", "riscv64", "built for amd64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "image.tar")
			err := run([]string{"-bin", bin, "-arch", tt.arch, "-o", out}, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}
