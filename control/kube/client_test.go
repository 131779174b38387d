package kube

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"corax/control"
)

// patience bounds what a test waits for on real connections.
const patience = 20 * time.Second

const domainA = `{"apiVersion":"raven.openyurt.io/v1beta1","kind":"Gateway","metadata":{"managedFields":[{"manager":"yurt-manager"}]},
	"spec":{"tunnelConfig":{"Replicas":1},"endpoints":[{"nodeName":"me","type":"tunnel","underNAT":false},{"nodeName":"you","type":"tunnel","underNAT":false}]},
	"status":{"nodes":[{"nodeName":"me","privateIP":"10.0.0.1","subnets":["10.1.0.0/24"]}],"activeEndpoints":[{"nodeName":"me","type":"tunnel"}]}}`

func configMap(data ...string) string {
	m := map[string]string{}
	for i := 0; i < len(data); i += 2 {
		m[data[i]] = data[i+1]
	}
	b, _ := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": m})
	return string(b)
}

// running is a Client that runs until the test ends.
type running struct {
	*Client
	t         *testing.T
	snapshots chan control.Snapshot
	changed   chan struct{}
	stop      func()
}

func run(t *testing.T, f *fakeAPI, change func(*Config)) *running {
	t.Helper()
	r := &running{t: t, snapshots: make(chan control.Snapshot, 100), changed: make(chan struct{}, 1)}
	cfg := Config{
		Node: "me", StateDir: t.TempDir(), EnableTunnel: true, EnableProxy: true,
		Update: func(s control.Snapshot) { r.snapshots <- s },
		Changed: func() {
			select {
			case r.changed <- struct{}{}:
			default:
			}
		},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := newClient(cfg, &rest.Config{Host: "http://" + f.addr})
	if err != nil {
		t.Fatal(err)
	}
	c.publisher.random = func() float64 { return 0 }
	r.Client = c
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		done <- nil
	}
	t.Cleanup(r.stop)
	return r
}

// next waits for a snapshot for which ok holds.
func (r *running) next(what string, ok func(control.Snapshot) bool) control.Snapshot {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case s := <-r.snapshots:
			if ok(s) {
				return s
			}
		case <-deadline:
			r.t.Fatalf("no snapshot with %s; state %+v", what, r.State())
		}
	}
}

// state waits for a state for which ok holds.
func (r *running) state(what string, ok func(State) bool) State {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		if s := r.State(); ok(s) {
			return s
		}
		select {
		case <-r.changed:
		case <-deadline:
			r.t.Fatalf("not %s; state %+v", what, r.State())
		}
	}
}

func some(control.Snapshot) bool { return true }

func TestReadsTheCluster(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.put(gatewaysPath, "broken", `{"metadata":{},"spec":{"endpoints":"none","exposeType":"Moon"}}`)
	f.put(settingsPath, settingsName, configMap(keyTunnel, "true", keyProxy, "false", keyAllow, "100.64.0.0/10", "acl-id", "x"))
	f.put(settingsPath, "other", configMap(keyTunnel, "false"))
	r := run(t, f, nil)
	s := r.next("both Gateways", some)
	if len(s.Gateways) != 2 || s.Gateways[0].Metadata.Name != "a" || len(s.Gateways[0].Status.Nodes) != 1 {
		t.Fatalf("gateways %+v", s.Gateways)
	}
	if !s.EnableTunnel || s.EnableProxy || len(s.AllowSources) != 1 {
		t.Errorf("tunnel %v, proxy %v, allow %v", s.EnableTunnel, s.EnableProxy, s.AllowSources)
	}
	var fields []string
	for _, p := range s.Problems {
		fields = append(fields, p.Object+" "+p.Field)
	}
	if d := cmp.Diff([]string{"gateway/broken spec.endpoints", "gateway/broken spec.exposeType"}, fields); d != "" {
		t.Error(d)
	}
	f.put(settingsPath, settingsName, configMap(keyTunnel, "false"))
	r.next("the tunnel switched off", func(s control.Snapshot) bool { return !s.EnableTunnel && s.EnableProxy && s.AllowSources == nil })
	f.put(settingsPath, settingsName, "")
	r.next("no raven-cfg", func(s control.Snapshot) bool { return s.EnableTunnel })
	f.put(gatewaysPath, "broken", "")
	r.next("one Gateway and no problem", func(s control.Snapshot) bool { return len(s.Gateways) == 1 && len(s.Problems) == 0 })
	f.put(gatewaysPath, "b", strings.ReplaceAll(domainA, "10.1.0.0/24", "x"))
	r.next("a bad subnet", func(s control.Snapshot) bool {
		return len(s.Problems) == 1 && s.Problems[0].Field == "status.nodes[0].subnets[0]"
	})
	if got := r.Server(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the API server is at %v", got)
	}
}

// TestAsksAsProxiesUnderstand: plain lists from the server's cache, a watch, one
// ConfigMap by its name, one user agent.
func TestAsksAsProxiesUnderstand(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	r := run(t, f, func(c *Config) { c.UserAgent = "raven-agent-ds" })
	r.next("a Gateway", some)
	r.state("connected", func(s State) bool { return s.Connected })
	if d := cmp.Diff([]string{"GET " + gatewaysPath + " resourceVersion=0"}, f.did("GET "+gatewaysPath+" r")); d != "" {
		t.Error(d)
	}
	for _, l := range f.did("GET " + settingsPath) {
		if !strings.Contains(l, "fieldSelector=metadata.name=raven-cfg") {
			t.Errorf("asked for more than raven-cfg: %s", l)
		}
	}
	for _, l := range f.did("") {
		if strings.Contains(l, "sendInitialEvents") {
			t.Errorf("a list in the form of a watch: %s", l)
		}
	}
	if d := cmp.Diff([]string{"raven-agent-ds"}, f.userAgents()); d != "" {
		t.Error(d)
	}
}

// TestNothingNewIsNoSnapshot: what only the object's metadata says is not told.
func TestNothingNewIsNoSnapshot(t *testing.T) {
	c, err := newClient(Config{Node: "me", Update: func(control.Snapshot) {}}, &rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	see := func(doc string) {
		t.Helper()
		o := new(object)
		if err := json.Unmarshal([]byte(doc), o); err != nil {
			t.Fatal(err)
		}
		if err := c.gateways.Update(o); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.gateways.Replace(nil, "1")
	_ = c.settings.Replace(nil, "1")
	see(`{"metadata":{"name":"a","resourceVersion":"1","generation":1}}`)
	if !c.tell() {
		t.Error("a new Gateway is not told")
	}
	see(`{"metadata":{"name":"a","resourceVersion":"2","generation":2,"managedFields":[{"manager":"x"}]},"later":1}`)
	if c.tell() {
		t.Error("nothing new is told")
	}
	see(`{"metadata":{"name":"a","annotations":{"corax.io/epoch":"2"}}}`)
	if !c.tell() {
		t.Error("a new epoch is not told")
	}
}

func TestPublishesAndKeepsTheLease(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	r := run(t, f, nil)
	r.Publish(Entry{PublicKey: "K1", TLSPort: 443})
	r.Carry(true, "")
	r.state("the entry written", func(s State) bool { return !s.Written.IsZero() })
	r.state("the Lease kept", func(s State) bool { return s.Lease == "active" })
	want := `[{"config":{"corax.io/tls-port":"443","publicKey":"K1"},"nodeName":"me","type":"tunnel","underNAT":false},{"nodeName":"you","type":"tunnel","underNAT":false}]`
	var got struct {
		Spec struct{ Endpoints json.RawMessage }
	}
	if err := json.Unmarshal([]byte(f.get(gatewaysPath, "a")), &got); err != nil || string(got.Spec.Endpoints) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got.Spec.Endpoints, want)
	}
	r.next("the published key", func(s control.Snapshot) bool {
		return len(s.Gateways) == 1 && s.Gateways[0].Spec.Endpoints[0].Config["publicKey"] == "K1"
	})
	r.stop()
	if lease := f.get(leasesPath, "me"); !strings.Contains(lease, `"holderIdentity":""`) || !strings.Contains(lease, stopped) {
		t.Errorf("the Lease of a stopped agent: %s", lease)
	}
	if n := len(f.did("PATCH " + gatewaysPath)); n != 1 {
		t.Errorf("%d writes of one entry", n)
	}
}

// TestSurvivesTheAPIServer stops it, restarts the agent meanwhile, and starts it
// again with news.
func TestSurvivesTheAPIServer(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.put(settingsPath, settingsName, configMap(keyProxy, "false", keyAllow, "100.64.0.0/10"))
	dir := t.TempDir()
	inDir := func(c *Config) { c.StateDir = dir }
	r := run(t, f, inDir)
	first := r.next("a Gateway", some)
	f.stop()
	s := r.state("away", func(s State) bool { return !s.Connected })
	if ps := s.Problems(); len(ps) != 1 || !strings.Contains(ps[0], "away since") || s.Since.IsZero() {
		t.Errorf("problems %q", ps)
	}
	r.stop()

	r = run(t, f, inDir)
	again := r.next("what was known", some)
	if d := cmp.Diff(first, again, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("the state kept on disk differs: %s", d)
	}
	s = r.state("away", func(s State) bool { return !s.Since.IsZero() })
	if ps := s.Problems(); len(ps) != 1 || !strings.Contains(ps[0], "what is in force was kept on disk at") {
		t.Errorf("problems %q", ps)
	}
	f.put(gatewaysPath, "a", strings.ReplaceAll(domainA, "10.1.0.0/24", "10.9.0.0/24"))
	f.start()
	r.next("the news", func(s control.Snapshot) bool { return s.Gateways[0].Status.Nodes[0].Subnets[0] == "10.9.0.0/24" })
	s = r.state("connected", func(s State) bool { return s.Connected && s.Recalled.IsZero() })
	if ps := s.Problems(); len(ps) != 0 {
		t.Errorf("problems stay: %q", ps)
	}
}

// TestBadAllowListAtFirst: it opens nothing, also after a restart, until it is
// mended.
func TestBadAllowListAtFirst(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.put(settingsPath, settingsName, configMap(keyAllow, "100.64.0.0/10,x"))
	dir := t.TempDir()
	inDir := func(c *Config) { c.StateDir = dir }
	for _, what := range []string{"first start", "restart"} {
		r := run(t, f, inDir)
		s := r.next(what, some)
		if !s.AllowClosed || len(s.AllowSources) != 0 {
			t.Errorf("%s: closed %v, %v", what, s.AllowClosed, s.AllowSources)
		}
		if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Message, "no list was in force before") {
			t.Errorf("%s: problems %v", what, s.Problems)
		}
		r.stop()
	}
	r := run(t, f, inDir)
	f.put(settingsPath, settingsName, configMap(keyAllow, "100.64.0.0/10"))
	r.next("the mended list", func(s control.Snapshot) bool { return !s.AllowClosed && len(s.AllowSources) == 1 })
	f.put(settingsPath, settingsName, configMap(keyAllow, "x"))
	r.next("the one before", func(s control.Snapshot) bool {
		return len(s.Problems) == 1 && !s.AllowClosed && len(s.AllowSources) == 1
	})
}

func TestNothingIsToldWithoutKnowledge(t *testing.T) {
	f := newFakeAPI(t)
	f.stop()
	r := run(t, f, nil)
	r.state("away", func(s State) bool { return !s.Since.IsZero() && !s.Connected })
	select {
	case s := <-r.snapshots:
		t.Errorf("a snapshot of nothing: %+v", s)
	default:
	}
}

func TestDamagedCacheIsToldAndReplaced(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	dir := t.TempDir()
	file := filepath.Join(dir, CacheFile)
	if err := os.WriteFile(file, []byte(`{"saved":"yesterday`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, f, func(c *Config) { c.StateDir = dir })
	s := r.State()
	for s.CacheErr == "" && s.Since.IsZero() {
		s = r.state("anything", func(State) bool { return true })
	}
	r.next("a Gateway", some)
	r.state("mended", func(s State) bool { return s.Connected && s.CacheErr == "" })
	r.stop()
	if k, err := (diskCache{dir: dir}).load(); err != nil || k == nil || len(k.Gateways) != 1 {
		t.Errorf("on disk: %+v, %v", k, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestUnreadableSettingsAreAProblem(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.setRefuse(settingsPath, 403)
	r := run(t, f, nil)
	s := r.next("a Gateway", some)
	if !s.EnableTunnel {
		t.Error("a switch that cannot be read is off, though standalone agents have it on")
	}
	st := r.state("told", func(s State) bool { return s.SettingsErr != "" })
	if ps := st.Problems(); len(ps) != 1 || !strings.Contains(ps[0], settingsName) {
		t.Errorf("problems %q", ps)
	}
}

func TestForbiddenWritesAreAProblem(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.setRefuse(gatewaysPath+"/", 403)
	f.setRefuse(leasesPath, 403)
	r := run(t, f, nil)
	r.next("a Gateway", some)
	r.Publish(Entry{PublicKey: "K1"})
	r.Carry(true, "")
	s := r.state("told", func(s State) bool { return s.WriteErr != "" && s.LeaseErr != "" })
	if ps := s.Problems(); len(ps) != 2 {
		t.Errorf("problems %q", ps)
	}
	counted := false
	for _, c := range r.Counters() {
		counted = counted || c.Name == "kube_entry_writes_total" && c.Reason == "denied" && c.Value > 0
	}
	if !counted {
		t.Errorf("not counted: %v", r.Counters())
	}
}

func TestConfigErrors(t *testing.T) {
	update := func(control.Snapshot) {}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, cfg := range map[string]Config{
		"no Update":              {Node: "me", Kubeconfig: "x"},
		"no kubeconfig":          {Node: "me", Update: update, Kubeconfig: filepath.Join(t.TempDir(), "x")},
		"no cluster around here": {Node: "me", Update: update},
	} {
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "kube: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := newClient(Config{Update: update}, &rest.Config{Host: "http://127.0.0.1:1"}); err == nil {
		t.Error("no node name, and no error")
	}
}

// eventually waits for something that real connections bring about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !f() {
		if !pause(ctx, 5*time.Millisecond) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
