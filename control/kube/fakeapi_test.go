package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// fakeAPI is an API server on loopback: it lists, watches and patches what it was
// given, without looking at it. It can be stopped, and started at the same
// address.
type fakeAPI struct {
	t *testing.T

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]string // by path of the collection, by name
	watchers map[chan string]string       // by the collection that they watch
	requests []string                     // method, path and what matters of the query
	agents   map[string]bool              // user agents
	refuse   map[string]int               // status by path of a collection

	server *httptest.Server
	addr   string
}

const (
	gatewaysPath = "/apis/raven.openyurt.io/v1beta1/gateways"
	settingsPath = "/api/v1/namespaces/kube-system/configmaps"
	servicesPath = "/api/v1/namespaces/kube-system/services"
	nodesPath    = "/api/v1/nodes"
	allServices  = "/api/v1/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/endpointslices"
	leasesPath   = "/apis/coordination.k8s.io/v1/namespaces/corax-leases/leases"
)

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{
		t: t, version: 100, watchers: map[chan string]string{}, agents: map[string]bool{}, refuse: map[string]int{},
		objects: map[string]map[string]string{gatewaysPath: {}, settingsPath: {}, servicesPath: {}, nodesPath: {}, leasesPath: {}, allServices: {}, slicesPath: {}},
	}
	f.addr = "127.0.0.1:0"
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *fakeAPI) start() {
	f.t.Helper()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = l.Addr().String()
	f.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	f.server.Start()
}

// stop ends all connections.
func (f *fakeAPI) stop() {
	f.server.CloseClientConnections()
	f.server.Close()
}

// put makes an object as it stands, or changes it, and tells who watches. An
// empty document deletes it.
func (f *fakeAPI) put(path, name, doc string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putLocked(path, name, doc)
}

func (f *fakeAPI) putLocked(path, name, doc string) {
	f.version++
	kind, was := "MODIFIED", f.objects[path][name]
	switch {
	case doc == "":
		kind, doc = "DELETED", was
		delete(f.objects[path], name)
	case was == "":
		kind = "ADDED"
	}
	doc = f.versioned(doc, name)
	if kind != "DELETED" {
		f.objects[path][name] = doc
	}
	for c, watched := range f.watchers {
		if watched == path {
			c <- fmt.Sprintf(`{"type":%q,"object":%s}`, kind, doc)
		}
	}
}

// versioned gives an object its name and version.
func (f *fakeAPI) versioned(doc, name string) string {
	meta := fmt.Sprintf(`{"metadata":{"name":%q,"resourceVersion":"%d"}}`, name, f.version)
	out, err := jsonpatch.MergePatch([]byte(doc), []byte(meta))
	if err != nil {
		f.t.Errorf("%s: %v", doc, err)
	}
	return string(out)
}

func (f *fakeAPI) get(path, name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[path][name]
}

// did returns the requests so far that begin so.
func (f *fakeAPI) did(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			out = append(out, r)
		}
	}
	return out
}

func (f *fakeAPI) setRefuse(path string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[path] = status
}

func (f *fakeAPI) userAgents() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.agents))
}

// ServeHTTP answers one request.
func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	line := r.Method + " " + r.URL.Path
	for _, k := range []string{"watch", "resourceVersion", "sendInitialEvents", "fieldSelector", "labelSelector"} {
		if q.Has(k) {
			line += " " + k + "=" + q.Get(k)
		}
	}
	f.mu.Lock()
	f.requests = append(f.requests, line)
	f.agents[r.UserAgent()] = true
	refused := 0
	for path, status := range f.refuse {
		if strings.HasPrefix(r.URL.Path, path) {
			refused = status
		}
	}
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	path, name, _ := cutObject(r.URL.Path)
	switch {
	case refused != 0:
		f.fail(w, refused, "refused by the test")
	case q.Get("watch") != "":
		f.watch(w, r, path)
	case r.Method == http.MethodGet && name == "":
		f.list(w, path, q)
	case r.Method == http.MethodGet:
		f.one(w, path, name)
	case r.Method == http.MethodPatch:
		f.patch(w, r, path, name)
	case r.Method == http.MethodPost:
		b, _ := io.ReadAll(r.Body)
		var doc struct{ Metadata struct{ Name string } }
		_ = json.Unmarshal(b, &doc)
		f.put(path, doc.Metadata.Name, string(b))
		_, _ = w.Write([]byte(f.get(path, doc.Metadata.Name)))
	case r.Method == http.MethodDelete:
		f.put(path, name, "")
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	default:
		f.fail(w, http.StatusMethodNotAllowed, "")
	}
}

func cutObject(p string) (collection, name string, ok bool) {
	for _, c := range []string{gatewaysPath, settingsPath, servicesPath, nodesPath, leasesPath, allServices, slicesPath} {
		if p == c {
			return c, "", true
		}
		if name, ok := strings.CutPrefix(p, c+"/"); ok {
			return c, name, true
		}
	}
	return p, "", false
}

func (f *fakeAPI) fail(w http.ResponseWriter, code int, message string) {
	reason := map[int]string{403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}[code]
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

func (f *fakeAPI) list(w http.ResponseWriter, path string, q url.Values) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, group := "GatewayList", "raven.openyurt.io/v1beta1"
	switch path {
	case settingsPath:
		kind, group = "ConfigMapList", "v1"
	case slicesPath:
		kind, group = "EndpointSliceList", "discovery.k8s.io/v1"
	case servicesPath, allServices:
		kind, group = "ServiceList", "v1"
	case nodesPath:
		kind, group = "NodeList", "v1"
	}
	var items []string
	names := slices.Sorted(maps.Keys(f.objects[path]))
	begin, _ := strconv.Atoi(q.Get("continue"))
	end, next := len(names), ""
	// As of an API server: a list from its cache is whole.
	if limit, _ := strconv.Atoi(q.Get("limit")); limit > 0 && q.Get("resourceVersion") != "0" && begin+limit < end {
		end, next = begin+limit, strconv.Itoa(begin+limit)
	}
	for _, name := range names[begin:end] {
		items = append(items, f.objects[path][name])
	}
	_, _ = fmt.Fprintf(w, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d","continue":%q},"items":[%s]}`, kind, group, f.version, next, strings.Join(items, ","))
}

func (f *fakeAPI) one(w http.ResponseWriter, path, name string) {
	if doc := f.get(path, name); doc != "" {
		_, _ = io.WriteString(w, doc)
		return
	}
	f.fail(w, http.StatusNotFound, name+" not found")
}

func (f *fakeAPI) patch(w http.ResponseWriter, r *http.Request, path, name string) {
	b, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	doc := f.objects[path][name]
	if doc == "" {
		f.fail(w, http.StatusNotFound, name+" not found")
		return
	}
	var after []byte
	var err error
	if strings.Contains(r.Header.Get("Content-Type"), "json-patch") {
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(b); err == nil {
			after, err = p.Apply([]byte(doc))
		}
	} else {
		after, err = jsonpatch.MergePatch([]byte(doc), b)
	}
	if err != nil {
		f.fail(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	f.putLocked(path, name, string(after))
	_, _ = io.WriteString(w, f.objects[path][name])
}

// watch streams what is newer than the version asked for: only what comes from
// now on, which is enough where a list was answered just before.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, path string) {
	events := make(chan string, 1000)
	f.mu.Lock()
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	for _, doc := range f.objects[path] {
		var o struct {
			Metadata struct{ ResourceVersion string }
		}
		_ = json.Unmarshal([]byte(doc), &o)
		if v, _ := strconv.Atoi(o.Metadata.ResourceVersion); v > since {
			events <- fmt.Sprintf(`{"type":"MODIFIED","object":%s}`, doc)
		}
	}
	f.watchers[events] = path
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, events)
		f.mu.Unlock()
	}()
	flush := w.(http.Flusher).Flush
	flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			_, _ = io.WriteString(w, e+"\n")
			flush()
		}
	}
}
