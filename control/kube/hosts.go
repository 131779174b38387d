package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// hostsName and hostsKey are where the controller, or yurt-manager, writes how
	// nodes are reached by name.
	hostsName = "edge-tunnel-nodes"
	hostsKey  = "tunnel-nodes"
	// ownHosts is this host's own hosts file. In a pod of the host's network it is a
	// copy.
	ownHosts = "/etc/hosts"
	// maxHosts bounds the file: a line has some sixty bytes.
	maxHosts = 4 << 20
	// hostsMark begins our part of the file.
	hostsMark = "# Names of the cluster's nodes, kept by corax. Lines above are those of this host."
	// placeEvery is how often it is looked whether this node has become one of the
	// control plane. Where we may not look, as agents of the edge may not, it is less
	// and less often: while everything is being installed rights come late, too.
	placeEvery, refusedFirst, refusedMost = 10 * time.Minute, 2 * time.Second, 6 * time.Hour
)

// hostsFile keeps a hosts file on a node of the control plane, for its API server:
// the lines of this host, then those of the ConfigMap.
type hostsFile struct {
	path string // of the file
	own  string // of this host's own hosts file
	node string
	api  *server
	link *link
	log  *slog.Logger
}

// run keeps the file while this node is one of the control plane.
func (h *hostsFile) run(ctx context.Context) error {
	for refused := refusedFirst; ; {
		n, err := h.api.readNode(ctx, h.node)
		var wait time.Duration
		switch {
		case err == nil && n.controlPlane:
			h.keep(ctx)
			return nil
		case err == nil:
			wait = placeEvery
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
			wait, refused = refused, min(2*refused, refusedMost)
		default:
			wait = 15 * time.Second
		}
		// Agents that were started at once should not ask at once.
		if !pause(ctx, wait+time.Duration(rand.Int64N(int64(wait/4)))) {
			return nil
		}
	}
}

// keep follows the ConfigMap until ctx is done.
func (h *hostsFile) keep(ctx context.Context) {
	h.log.Info("this is a node of the control plane: its hosts file is kept", "file", h.path)
	// What is read again is written again, and says so.
	_ = h.api.watchConfig(ctx, &configStore{name: hostsName, key: hostsKey, set: h.write}, h.link.hosts) // never fails
}

// write brings the file up to date.
func (h *hostsFile) write(lines string) {
	err := h.put(lines)
	if err != nil {
		err = fmt.Errorf("write %s: %w", h.path, err)
		h.log.Warn("the hosts file cannot be kept", "err", err)
	}
	h.link.hosts(err)
}

func (h *hostsFile) put(lines string) error {
	own, err := readHosts(h.own)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read this host's own: %w", err)
	}
	text := hostsText(own, lines)
	if len(text) > maxHosts {
		return fmt.Errorf("larger than %d bytes", maxHosts)
	}
	return writeInPlace(h.path, text)
}

// hostsText returns the whole file: what the host has of its own, at least
// localhost, and the names of nodes. A name of the host's own comes first, and so
// it counts.
func hostsText(own []byte, lines string) []byte {
	before, _, _ := bytes.Cut(own, []byte(hostsMark))
	var b bytes.Buffer
	if len(bytes.TrimSpace(before)) == 0 {
		before = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
	}
	b.Write(bytes.TrimRight(before, "\n"))
	b.WriteString("\n" + hostsMark + "\n")
	if lines = strings.Trim(lines, "\n"); lines != "" {
		b.WriteString(lines + "\n")
	}
	return b.Bytes()
}

func readHosts(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxHosts))
}

// writeInPlace writes a file without making another one: a container that has it
// mounted keeps the file, not its name. One write replaces the contents, and then
// what is left of longer ones is cut off, so the file is never empty.
func writeInPlace(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("not a regular file")
	}
	// Whatever the umask is: an API server need not be root.
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	was, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err != nil || bytes.Equal(was, text) {
		return err
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}
