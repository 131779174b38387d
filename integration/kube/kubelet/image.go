//go:build linux

package kubelet

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
)

const (
	// Image is the image of every container: busybox, with its usual names.
	Image = "localhost/corax-test:1"

	busybox = "/usr/bin/busybox"
)

// applets are the names by which containers call busybox.
const applets = "sh cat tar sleep echo sha256sum stty tty wc dd true false ls rm mkdir test yes head tail id hostname nc kill"

// writeImage writes an OCI image layout with one layer as a tar file.
func writeImage(file string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	layer, err := archive(func(w *tar.Writer) error { return writeLayer(w, program) })
	if err != nil {
		return err
	}
	image, err := archive(func(w *tar.Writer) error { return writeLayout(w, layer) })
	if err != nil {
		return err
	}
	return os.WriteFile(file, image, 0o600)
}

func archive(fill func(*tar.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := fill(w); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

func writeLayer(w *tar.Writer, program []byte) error {
	for _, dir := range []string{"bin/", "etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o777}); err != nil {
			return err
		}
	}
	if err := writeFile(w, "bin/busybox", 0o755, program); err != nil {
		return err
	}
	for name := range strings.FieldsSeq(applets) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}); err != nil {
			return err
		}
	}
	return writeFile(w, "etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n"))
}

func writeLayout(w *tar.Writer, layer []byte) error {
	config := object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "2147483647"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(layer)}},
	}
	layers := []object{descriptor("application/vnd.oci.image.layer.v1.tar", layer)}
	configJSON, err := json.Marshal(config)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", configJSON), "layers": layers,
	})
	if err != nil {
		return err
	}
	entry := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	entry["annotations"] = object{"io.containerd.image.name": Image}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []object{entry}})
	if err != nil {
		return err
	}
	for _, blob := range [][]byte{layer, configJSON, manifest} {
		if err := writeFile(w, "blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:"), 0o644, blob); err != nil {
			return err
		}
	}
	if err := writeFile(w, "oci-layout", 0o644, []byte(`{"imageLayoutVersion": "1.0.0"}`)); err != nil {
		return err
	}
	return writeFile(w, "index.json", 0o644, index)
}

func writeFile(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := w.Write(data)
	return err
}

func descriptor(mediaType string, blob []byte) object {
	return object{"mediaType": mediaType, "digest": digest(blob), "size": len(blob)}
}

func digest(blob []byte) string {
	sum := sha256.Sum256(blob)
	return "sha256:" + hex.EncodeToString(sum[:])
}
