//go:build linux

package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// auditPolicy has every request that changes something, once it is answered, and
// what is asked of Gateways.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: raven.openyurt.io}]
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
`

// Write is one request that asked to change something.
type Write struct {
	Time        time.Time // when it was received
	User, Agent string    // user name, and user agent
	Verb        string    // create, update, patch, delete, deletecollection
	Resource    string    // plural, with the subresource after a slash
	Namespace   string
	Name        string
	Code        int // of the answer
	// Body is what was asked of a Gateway, in JSON; nil of other resources.
	Body json.RawMessage
}

func (w Write) String() string {
	return fmt.Sprintf("%s %s %s %s/%s by %s (%s): %d %s", w.Time.Format("15:04:05.000"), w.Verb, w.Resource, w.Namespace, w.Name, w.User, w.Agent, w.Code, w.Body)
}

// Mark is a place in the order of all writes.
type Mark int64

// Mark returns the place after all writes until now.
func (c *Cluster) Mark(t testing.TB) Mark {
	t.Helper()
	info, err := os.Stat(c.file("audit.log"))
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	return Mark(info.Size())
}

// Writes returns the requests answered since a mark that asked to change
// something, dry runs and refused ones included, in the order of their answers.
// keep, when not nil, says which of them count.
func (c *Cluster) Writes(t testing.TB, since Mark, keep func(Write) bool) []Write {
	t.Helper()
	f, err := os.Open(c.file("audit.log"))
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(int64(since), io.SeekStart); err != nil {
		t.Fatalf("cluster: %v", err)
	}
	var writes []Write
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // a line that is not yet whole is no write yet
			return writes
		}
		if err != nil {
			t.Fatalf("cluster: read the audit log: %v", err)
		}
		w, err := parseAudit(line)
		if err != nil {
			t.Fatalf("cluster: audit log: %v", err)
		}
		if keep == nil || keep(w) {
			writes = append(writes, w)
		}
	}
}

func parseAudit(line []byte) (Write, error) {
	var e struct {
		Verb      string
		UserAgent string
		User      struct{ Username string }
		ObjectRef struct {
			Resource, Subresource, Namespace, Name string
		}
		ResponseStatus           struct{ Code int }
		RequestObject            json.RawMessage
		RequestReceivedTimestamp time.Time
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return Write{}, err
	}
	w := Write{
		Time: e.RequestReceivedTimestamp, User: e.User.Username, Agent: e.UserAgent, Verb: e.Verb,
		Resource: e.ObjectRef.Resource, Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name, Code: e.ResponseStatus.Code,
		Body: e.RequestObject,
	}
	if e.ObjectRef.Subresource != "" {
		w.Resource += "/" + e.ObjectRef.Subresource
	}
	return w, nil
}
