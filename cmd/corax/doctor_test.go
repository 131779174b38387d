package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// patient is a world to examine: a front that reaches edge-1, unless changed.
type patient struct {
	status    Status
	statusErr error
	probe     ProxyProbe
	probeErr  error
	resolved  []string
	resolvErr error
	knocked   knocked
	survey    surveyed
	surveyErr error
	hosts     string
}

func (p *patient) Status(context.Context) (Status, error) { return p.status, p.statusErr }

func (p *patient) Probe(_ context.Context, node string, port uint16) (ProxyProbe, error) {
	if node != "edge-1" || port != 10250 {
		return ProxyProbe{}, fmt.Errorf("asked for %s:%d", node, port)
	}
	return p.probe, p.probeErr
}

func healthy() *patient {
	ip := netip.MustParseAddr
	return &patient{
		status: Status{Node: "hub", Role: RoleGateway, Gateway: "cloud", Proxy: &ProxyStatus{
			Front: true, Nodes: 3, Listeners: []ProxyListener{{Front: "tls", Address: "10.0.0.1:10281"}},
		}},
		probe:    ProxyProbe{Front: true, Node: "edge-1", Gateway: "a", Via: []netip.Addr{ip("fd63::1")}, Code: "none", Millis: 12, TLS: "system:node:edge-1"},
		resolved: []string{"10.96.0.7"},
		knocked:  knocked{subject: "system:node:edge-1", names: []string{"box"}},
		survey: surveyed{
			Node: "edge-1", Hostname: "box", Gateway: "a", Active: []string{"edge-1"}, Fronts: []string{"hub"},
			Leads: ip("10.96.0.7"), Service: ip("10.96.0.7"), Ports: []uint16{10250, 9100}, Ready: 1,
		},
	}
}

func (p *patient) examine(t *testing.T, kubeconfig string) DoctorReport {
	t.Helper()
	d := doctor{
		question: doctorQuestion{Node: "edge-1", Port: 10250, Kubeconfig: kubeconfig, Hosts: p.hosts}, agent: p,
		resolve: func(_ context.Context, host string) ([]string, error) {
			if want := map[string]string{"": "edge-1", "k": "box"}[kubeconfig]; host != want && p.surveyErr == nil && p.survey.Node != "" {
				t.Errorf("%q is resolved, not %q", host, want)
			}
			return p.resolved, p.resolvErr
		},
		knock: func(_ context.Context, address, name string) knocked {
			if own := p.status.Proxy != nil && address == p.status.Proxy.Listeners[0].Address; !own && address != net.JoinHostPort(p.resolved[0], "10250") {
				t.Errorf("knocks at %s", address)
			}
			if len(p.knocked.names) > 0 && kubeconfig == "" {
				p.knocked.names = []string{name}
			}
			return p.knocked
		},
		survey: func(context.Context, string, string) (surveyed, error) { return p.survey, p.surveyErr },
	}
	return d.examine(t.Context())
}

func TestDoctor(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		name   string
		change func(*patient)
		// step and verdict of the check that this is about, and a part of its cause
		// and fix.
		step    string
		verdict verdict
		cause   string
		fix     string
	}{
		{"healthy", func(*patient) {}, "node", checkOK, "", ""},
		{"no agent here", func(p *patient) { p.statusErr = errors.New("no socket") }, "path", checkSkip, "", "kubectl -n kube-system exec"},
		{"a plain node", func(p *patient) { p.status.Proxy = nil }, "path", checkSkip, "", "on a front"},
		{"a front's port is taken", func(p *patient) { p.status.Proxy.Listeners[0].Error = "address in use" }, "agent", checkFail, "address in use", "--proxy-tls-addr"},
		{"a problem of the cluster", func(p *patient) { p.status.Problems = []string{"cluster: no rights"} }, "agent", checkWarn, "no rights", "corax status"},
		{"the cluster is away", func(p *patient) { p.surveyErr = errors.New("refused") }, "objects", checkFail, "refused", "kubeconfig"},
		{"no such node", func(p *patient) { p.survey = surveyed{} }, "objects", checkFail, "no node has that name", "kubectl get nodes"},
		{"switched off", func(p *patient) { p.survey.Switch = "false" }, "objects", checkFail, "switched off", "enable-l7-proxy"},
		{"in no Gateway", func(p *patient) { p.survey.Gateway = "" }, "objects", checkFail, "no Gateway", "controller"},
		{"nobody active", func(p *patient) { p.survey.Active = nil }, "objects", checkFail, "no endpoint of Gateway a", "describe gateway a"},
		{"no front", func(p *patient) { p.survey.Fronts = nil }, "objects", checkFail, "no front", "exposeType"},
		{"no Service", func(p *patient) { p.survey.Service = netip.Addr{} }, "objects", checkFail, "no Service", "controller"},
		{"not in the ConfigMap", func(p *patient) { p.survey.Leads = netip.Addr{} }, "objects", checkFail, "does not have the node", "controller"},
		{"another port", func(p *patient) { p.survey.Ports = []uint16{9100} }, "objects", checkFail, "does not serve port 10250", "proxyHTTPSPort"},
		{"no endpoint", func(p *patient) { p.survey.Ready = 0 }, "objects", checkFail, "no endpoint", "endpointslices"},
		{"less rights", func(p *patient) {
			p.survey.Service, p.survey.Unread = netip.Addr{}, []string{"service/x: forbidden"}
		}, "objects", checkOK, "", ""},
		{"name unknown", func(p *patient) { p.status.Proxy, p.resolvErr = nil, errors.New("no such host") }, "name", checkFail, "no such host", "edge-tunnel-nodes"},
		{"name unknown at a front", func(p *patient) { p.resolvErr = errors.New("no such host") }, "name", checkWarn, "no such host", "edge-tunnel-nodes"},
		{"then its own port is asked", func(p *patient) { p.resolvErr = errors.New("no such host") }, "front", checkOK, "", ""},
		{"name unknown to a hosts file", func(p *patient) { p.hosts, p.resolvErr = "/h", errors.New("no such host") }, "name", checkFail, "no such host", "edge-tunnel-nodes"},
		{"name on loopback", func(p *patient) { p.status.Proxy, p.resolved = nil, []string{"127.0.0.1"} }, "name", checkFail, "loopback", "edge-tunnel-nodes"},
		{"stale name", func(p *patient) { p.status.Proxy, p.resolved = nil, []string{"10.96.0.9"} }, "name", checkFail, "10.96.0.7", "edge-tunnel-nodes"},
		{"Hostname is an address", func(p *patient) { p.survey.Hostname = "192.168.1.10" }, "name", checkSkip, "", "CONNECT"},
		{"nobody listens", func(p *patient) { p.knocked = knocked{dial: errors.New("connection refused")} }, "service", checkFail, "connection refused", "kube-proxy"},
		{"unknown to the front", func(p *patient) { p.knocked = knocked{alert: 112, err: errors.New("x")} }, "front", checkFail, "no node of that name", "Gateway"},
		{"port refused", func(p *patient) { p.knocked = knocked{alert: 49, err: errors.New("x")} }, "front", checkFail, "that port", "proxyHTTPSPort"},
		{"no way", func(p *patient) { p.knocked = knocked{alert: 80, err: errors.New("x")} }, "front", checkFail, "no way", "on a front"},
		{"no TLS", func(p *patient) { p.knocked = knocked{err: errors.New("not TLS")} }, "front", checkWarn, "not TLS", "http://box:10250"},
		{"self-signed kubelet", func(p *patient) { p.knocked = knocked{subject: "edge-1-ca"} }, "front", checkWarn, "does not have the name box", "serverTLSBootstrap"},
		{"unknown to this front", func(p *patient) { p.probe = ProxyProbe{Front: true, Code: "unknown_node", Error: "no node"} }, "path", checkFail, "no node", "Gateway"},
		{"no path", func(p *patient) { p.probe.Code, p.probe.Error = "no_path", "timed out" }, "path", checkFail, "timed out", "corax ping a"},
		{"the edge refuses the port", func(p *patient) { p.probe.Code, p.probe.Error = "port", "not one of" }, "edge", checkFail, "not one of", "Gateway a"},
		{"the edge refuses the front", func(p *patient) { p.probe.Code, p.probe.Error = "caller", "who?" }, "edge", checkFail, "who?", "objects differ"},
		{"kubelet down", func(p *patient) { p.probe.Code, p.probe.Error = "dial", "connection refused" }, "node", checkFail, "connection refused", "kubelet"},
		{"too many", func(p *patient) { p.probe.Code, p.probe.Error = "limit", "4096" }, "edge", checkFail, "4096", "corax proxy"},
		{"a code of a newer agent", func(p *patient) { p.probe.Code, p.probe.Error = "new", "x" }, "path", checkFail, "x", "corax status"},
		{"certificate not verified", func(p *patient) { p.probe.TLSError = "unknown authority" }, "node", checkWarn, "unknown authority", "--kubelet-ca"},
		{"the agent went away", func(p *patient) { p.probeErr = errors.New("gone") }, "path", checkFail, "gone", "corax status"},
		{"own domain", func(p *patient) { p.probe.Own, p.probe.Via = true, nil }, "path", checkOK, "", ""},
		{"a plain port", func(p *patient) { p.probe.TLS, p.probe.TLSError = "", "no TLS" }, "node", checkOK, "", ""},
		{"another address family", func(p *patient) {
			p.resolved, p.survey.Leads, p.survey.Service = []string{"fd00::7"}, ip("fd00::7"), ip("fd00::7")
		}, "name", checkOK, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := healthy()
			tt.change(p)
			r := p.examine(t, "k")
			found := false
			for _, c := range r.Checks {
				if c.Verdict == checkFail && (c.Cause == "" || c.Fix == "") {
					t.Errorf("%s fails without cause or fix: %+v", c.Step, c)
				}
				if c.Step == tt.step {
					found = true
					if c.Verdict != tt.verdict || !strings.Contains(c.Cause, tt.cause) || !strings.Contains(c.Fix, tt.fix) {
						t.Errorf("%+v", c)
					}
				}
			}
			if !found {
				t.Errorf("nothing of %s: %+v", tt.step, r.Checks)
			}
			if tt.verdict == checkFail && !r.failed() || tt.name == "healthy" && r.failed() {
				t.Errorf("failed: %v", r.failed())
			}
		})
	}
	if r := healthy().examine(t, ""); r.failed() || r.Checks[1].Verdict != checkSkip {
		t.Errorf("without a cluster: %+v", r.Checks)
	}
}

func TestLookHosts(t *testing.T) {
	const text = "# 1.1.1.1 edge-1\n127.0.0.1 localhost\n10.96.0.7\tedge-1 box. # x\nnonsense edge-1\nfd00::7 EDGE-1\n10.0.0.1\n"
	for host, want := range map[string]string{"edge-1": "10.96.0.7 fd00::7", "Edge-1.": "10.96.0.7 fd00::7", "box": "10.96.0.7", "x": "", "edge": ""} {
		if got := strings.Join(lookHosts([]byte(text), host), " "); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	other := errors.New("asked the next")
	look := withHosts(file, func(context.Context, string) ([]string, error) { return nil, other })
	if list, err := look(t.Context(), "box"); len(list) != 1 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := look(t.Context(), "x"); !errors.Is(err, other) {
		t.Error(err)
	}
	if _, err := withHosts(file+"x", nil)(t.Context(), "x"); err == nil {
		t.Error("a file that is not there is no error")
	}
}

// TestDoctorInPod has only the rights of its pod.
func TestDoctorInPod(t *testing.T) {
	p := healthy()
	d := doctor{
		question: doctorQuestion{Node: "edge-1", Port: 10250}, agent: p, inCluster: true,
		resolve: func(context.Context, string) ([]string, error) { return p.resolved, nil },
		knock:   func(context.Context, string, string) knocked { return p.knocked },
		survey:  func(context.Context, string, string) (surveyed, error) { return p.survey, p.surveyErr },
	}
	if r := d.examine(t.Context()); r.failed() || r.Checks[1].Verdict != checkOK || !strings.Contains(r.Checks[1].Found, "fronts hub") {
		t.Errorf("%+v", r.Checks)
	}
	p.surveyErr = errors.New("forbidden")
	if r := d.examine(t.Context()); r.failed() || r.Checks[1].Verdict != checkSkip || r.Checks[1].Cause != "forbidden" {
		t.Errorf("%+v", r.Checks)
	}
}

func FuzzLookHosts(f *testing.F) {
	f.Add([]byte("10.96.0.7\tedge-1 box # x\n"), "edge-1")
	f.Fuzz(func(t *testing.T, text []byte, host string) {
		for _, a := range lookHosts(text, host) {
			if _, err := netip.ParseAddr(a); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestKnock asks ends that answer as fronts and nodes do.
func TestKnock(t *testing.T) {
	cert, key := testPair(t, "edge-1")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(f func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			f(c)
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
		return l.Addr().String()
	}
	heard := func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }
	k := knock(t.Context(), serve(func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake()
	}), "edge-1")
	if k.err != nil || k.subject != "edge-1" || len(k.names) != 1 || k.alert != 0 {
		t.Errorf("a node: %+v", k)
	}
	if k := knock(t.Context(), serve(func(c net.Conn) { heard(c); _, _ = c.Write([]byte{21, 3, 1, 0, 2, 2, 112}) }), "x"); k.alert != 112 || k.err == nil {
		t.Errorf("an alert: %+v", k)
	}
	if k := knock(t.Context(), serve(func(c net.Conn) { heard(c); _, _ = c.Write([]byte("HTTP/1.0 400 no\r\n\r\n")) }), "x"); k.alert != 0 || k.err == nil || k.dial != nil {
		t.Errorf("plain HTTP: %+v", k)
	}
	if k := knock(t.Context(), "127.0.0.1:1", "x"); k.dial == nil {
		t.Errorf("nobody: %+v", k)
	}
}
