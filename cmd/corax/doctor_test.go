package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	connected *connected         // what a CONNECT comes to; nil: none is asked for
	fetched   map[string]fetched // by token
	token     string
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
			Leads: ip("10.96.0.7"), Service: ip("10.96.0.7"), Ports: []uint16{10250, 9100}, Plain: []uint16{9100}, Ready: 1,
		},
		fetched: map[string]fetched{"": {status: 401, text: "corax: authentication: no bearer token"}, "t": {status: 200, text: "# HELP x"}},
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
		fetch: func(_ context.Context, address, host, token string) fetched {
			if address != "10.96.0.7:9100" && address != "10.0.0.1:10282" && address != "127.0.0.1:10282" || host != "edge-1:10250" {
				t.Errorf("fetches %s from %s", host, address)
			}
			return p.fetched[token]
		},
		connect: func(_ context.Context, _ connectVia, target, name string) connected {
			if target != "box:10250" || name != "box" {
				t.Errorf("CONNECT %s for %s", target, name)
			}
			return *p.connected
		},
	}
	d.question.Token = p.token
	if p.connected != nil {
		d.question.Connect = connectVia{URL: "https://10.96.0.8:10295"}
		if err := d.question.Connect.parse(); err != nil {
			t.Fatal(err)
		}
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
		{"plain HTTP asks who it is", func(*patient) {}, "http", checkOK, "", ""},
		{"no token to try", func(*patient) {}, "token", checkSkip, "", "--token-file"},
		{"this front's own plain port", func(p *patient) {
			p.status.Proxy.Listeners = append(p.status.Proxy.Listeners, ProxyListener{Front: "http", Address: "10.0.0.1:10282"})
		}, "http", checkOK, "", ""},
		{"no plain port", func(p *patient) { p.survey.Plain = nil }, "http", checkSkip, "", "proxyHTTPPort"},
		{"nobody at the plain port", func(p *patient) { p.fetched[""] = fetched{err: errors.New("refused")} }, "http", checkFail, "refused", "kube-proxy"},
		{"a plain port that asks nobody", func(p *patient) { p.fetched[""] = fetched{status: 200} }, "http", checkFail, "asks nobody", "corax status"},
		{"on loopback it may", func(p *patient) {
			p.status.Proxy.Listeners = append(p.status.Proxy.Listeners, ProxyListener{Front: "http", Address: "127.0.0.1:10282"})
			p.fetched[""] = fetched{status: 401, text: "Unauthorized"}
		}, "http", checkOK, "", ""},
		{"the plain port knows no such node", func(p *patient) { p.fetched[""] = fetched{status: 404, text: "corax: request: no node"} }, "http", checkFail, "no node", "Gateway"},
		{"a good token", func(p *patient) { p.token = "t" }, "token", checkOK, "", ""},
		{"an old token", func(p *patient) {
			p.token = "x"
			p.fetched["x"] = fetched{status: 401, text: "corax: authentication: expired"}
		}, "token", checkFail, "expired", "--proxy-audience"},
		{"no role", func(p *patient) {
			p.token = "x"
			p.fetched["x"] = fetched{status: 403, text: "corax: authorization: no"}
		}, "token", checkFail, "no", "nodes/metrics"},
		{"a kubelet that asks nobody about tokens", func(p *patient) { p.token = "x"; p.fetched["x"] = fetched{status: 401, text: "Unauthorized"} }, "token", checkFail, "does not know", "webhook"},
		{"no role, says the kubelet", func(p *patient) { p.token = "x"; p.fetched["x"] = fetched{status: 403, text: "Forbidden"} }, "token", checkFail, "Forbidden", "nodes/metrics"},
		{"a kubelet's own certificate", func(p *patient) {
			p.token = "x"
			p.fetched["x"] = fetched{status: 502, text: "corax: node: TLS with node edge-1"}
		}, "token", checkFail, "TLS", "certificate"},
		{"a kubelet that fails", func(p *patient) { p.token = "x"; p.fetched["x"] = fetched{status: 500, text: "sorry"} }, "token", checkFail, "sorry", "log"},
		{"the request dies", func(p *patient) { p.token = "x"; p.fetched["x"] = fetched{err: errors.New("eof")} }, "token", checkFail, "eof", "corax proxy"},

		{"CONNECT", func(p *patient) { p.connected = &connected{subject: "front", status: 200, node: p.knocked} }, "kubelet", checkOK, "", ""},
		{"CONNECT asks no name", func(p *patient) {
			p.connected, p.resolvErr = &connected{status: 200, node: p.knocked}, errors.New("no such host")
		}, "name", checkSkip, "", ""},
		{"nobody takes a CONNECT", func(p *patient) { p.connected = &connected{dial: errors.New("refused")} }, "socket", checkFail, "refused", "proxy.connect.existingSecret"},
		{"another authority", func(p *patient) { p.connected = &connected{tls: x509.UnknownAuthorityError{}} }, "tls", checkFail, "unknown authority", "--connect-ca"},
		{"another name", func(p *patient) {
			p.connected = &connected{tls: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "10.96.0.8"}}
		}, "tls", checkFail, "10.96.0.8", "ClusterIP"},
		{"an unwanted client", func(p *patient) {
			p.connected = &connected{tls: &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}}
		}, "tls", checkFail, "bad certificate", "--proxy-connect-client"},
		{"no TLS there", func(p *patient) { p.connected = &connected{tls: errors.New("not TLS")} }, "tls", checkFail, "not TLS", "corax status"},
		{"no answer to CONNECT", func(p *patient) { p.connected = &connected{answer: errors.New("EOF")} }, "connect", checkFail, "EOF", "corax status"},
		{"CONNECT to a strange node", func(p *patient) { p.connected = &connected{status: 404, text: "corax: request: no node"} }, "connect", checkFail, "no node", "takes part"},
		{"CONNECT to a strange port", func(p *patient) { p.connected = &connected{status: 403, text: "corax: request: port"} }, "connect", checkFail, "port", "proxyHTTPSPort"},
		{"CONNECT without a path", func(p *patient) { p.connected = &connected{status: 504, text: "corax: path: x"} }, "connect", checkFail, "path", "on a front"},
		{"CONNECT to a dead kubelet", func(p *patient) { p.connected = &connected{status: 502, text: "corax: node: x"} }, "connect", checkFail, "node", "kubelet"},
		{"CONNECT while it is off", func(p *patient) { p.connected = &connected{status: 503, text: "corax: off"} }, "connect", checkFail, "off", "corax status"},
		{"CONNECT to a self-signed kubelet", func(p *patient) {
			p.connected = &connected{status: 200, node: knocked{subject: "edge-1-ca"}}
		}, "kubelet", checkWarn, "does not have the name box", "serverTLSBootstrap"},
		{"CONNECT to a plain port", func(p *patient) { p.connected = &connected{status: 200, node: knocked{err: errors.New("not TLS")}} }, "kubelet", checkWarn, "not TLS", "http://box:10250"},
		{"another address family", func(p *patient) {
			p.resolved, p.survey.Leads, p.survey.Service = []string{"fd00::7"}, ip("fd00::7"), ip("fd00::7")
			p.survey.Plain = nil
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
		fetch:   func(context.Context, string, string, string) fetched { return p.fetched[""] },
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
