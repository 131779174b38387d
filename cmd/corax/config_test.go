package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"corax/dataplane/key"
)

// load parses a command line as `corax agent` does, with files and environment
// from maps. notes are what would be logged.
func load(args []string, files, env map[string]string) (cfg agentConfig, notes []string, err error) {
	readFile := func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	settings := agentSettings(&cfg, readFile)
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	register(flags, settings)
	file := flags.String("config", "", "")
	ignored := registerRaven(flags, settings)
	if err := flags.Parse(args); err != nil {
		return cfg, nil, err
	}
	err = parseAgentConfig(&cfg, settings, *file, func(name string) string { return env[name] }, readFile)
	for _, u := range ignored() {
		notes = append(notes, u.flag)
	}
	return cfg, notes, err
}

// least is a command line that is just enough.
func least(args ...string) []string {
	return append([]string{"--node-name=n1", "--node-ip=10.0.0.4", "--gateways=dir"}, args...)
}

func defaults() agentConfig {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.4"), port) }
	return agentConfig{
		NodeName: "n1", NodeIP: netip.MustParseAddr("10.0.0.4"), Gateways: "dir", ClusterDomain: "cluster.local", Preset: presetStandalone,
		StateDir: "/var/lib/corax", Socket: "/run/corax/agent.sock", Datapath: datapathAuto,
		TunnelPort: 4500, TLSPort: 10280, VXLANPort: 4472, VNI: 200, TUNName: "corax0", UAPI: true,
		MetricsAddr: at(10283), HealthAddr: at(10284), ProxyTLSAddr: at(10281), ProxyHTTPAddr: at(10282),
		Front:         frontConfig{ConnectAddr: at(10295), Hosts: "auto"},
		MemoryProfile: profileAuto, LogLevel: slog.LevelInfo, LogFormat: logText,
	}
}

func diffConfig(want, got agentConfig) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}, key.Preshared{}, doorAt{}))
}

func TestConfig(t *testing.T) {
	on, off := true, false
	secret := key.PresharedFromSecret([]byte("hush"))
	for _, tt := range []struct {
		name  string
		args  []string
		files map[string]string
		env   map[string]string
		want  func(c *agentConfig)
		notes []string
	}{
		{name: "defaults", args: least()},
		{name: "environment", args: []string{"--gateways=dir"}, env: map[string]string{"NODE_NAME": "n1", "NODE_IP": "10.0.0.4"}},
		{name: "flags win over the environment", args: least(), env: map[string]string{"NODE_NAME": "other", "NODE_IP": "10.9.9.9"}},
		{
			name: "file", args: []string{"--config=c"}, want: func(c *agentConfig) {
				c.StateDir, c.Socket, c.Datapath, c.Netns = "/s", "/x.sock", datapathUserns, "/run/netns/pods"
				c.TunnelPort, c.TLSPort, c.VXLANPort, c.VNI, c.TUNName = 1, 2, 3, 4, "t0"
				c.HostSources = []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")}
				c.Preshared = secret
				c.STUNServers = []hostPort{{"stun.example", 3478}, {"::1", 1}}
				c.MetricsAddr, c.HealthAddr = netip.MustParseAddrPort("127.0.0.1:5"), netip.AddrPort{}
				c.ProxyTLSAddr, c.ProxyHTTPAddr = netip.MustParseAddrPort("[::]:6"), netip.MustParseAddrPort("10.0.0.4:7")
				c.Front = frontConfig{
					ConnectAddr: netip.MustParseAddrPort("127.0.0.1:8"), ConnectCert: "c.pem", ConnectKey: "k.pem", ConnectClientCA: "ca.pem",
					ConnectNames: []string{"kube-apiserver"}, ConnectSocket: "/c.sock",
					ConnectCluster: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, KubeletCA: "kubelet.pem", Audiences: []string{"a", "b"}, Hosts: "off",
				}
				c.TakeOver, c.UAPI, c.LogLevel, c.LogFormat = true, false, slog.LevelWarn, logJSON
				c.Allow = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.2.1/32")}
				c.Tunnel, c.Proxy = &on, &off
			},
			files: map[string]string{"psk": "hush\n", "c": `# everything
nodeName: n1
nodeIP: 10.0.0.4
gateways: dir
stateDir: /s
socket: /x.sock
datapath: userns
netns: /run/netns/pods
tunnelPort: 1
tlsPort: 2
vxlanPort: 3
vni: 4
tunName: t0
hostSource: [10.1.0.1, "fd00::1"]
pskFile: psk
stunServers:
  - stun.example:3478
  - "[::1]:1"
metricsAddr: 127.0.0.1:5
healthAddr: "off"
proxyTLSAddr: "[::]:6"
proxyHTTPAddr: ":7"
proxyConnectAddr: 127.0.0.1:8
proxyConnectCert: c.pem
proxyConnectKey: k.pem
proxyConnectClientCA: ca.pem
proxyConnectClients: kube-apiserver
proxyConnectSocket: /c.sock
proxyConnectCluster: 10.96.0.0/12
kubeletCA: kubelet.pem
proxyAudiences: [a, b]
hostsFile: "off"
takeOver: true
uapi: false
logLevel: warn
logFormat: json
allowSources: [100.64.0.0/10, 192.0.2.1]
enableTunnel: true
enableProxy: false
`},
		},
		{
			name: "flags win over the file, whole lists", args: least("--config=c", "--host-source=10.2.0.1", "--uapi=false", "--take-over"),
			files: map[string]string{"c": "nodeName: other\nhostSource: [10.1.0.1, fd00::1]\nuapi: true\n"},
			want: func(c *agentConfig) {
				c.HostSources, c.UAPI, c.TakeOver = []netip.Addr{netip.MustParseAddr("10.2.0.1")}, false, true
			},
		},
		{
			name: "the file wins over the environment", args: []string{"--config=c"}, env: map[string]string{"NODE_NAME": "other"},
			files: map[string]string{"c": "nodeName: n1\nnodeIP: 10.0.0.4\ngateways: dir\n"},
		},
		{
			name: "repeated flag and commas", args: least("--stun-server=a:1", "--stun-server=b:2,c:3"),
			want: func(c *agentConfig) { c.STUNServers = []hostPort{{"a", 1}, {"b", 2}, {"c", 3}} },
		},
		{name: "empty file", args: least("--config=c"), files: map[string]string{"c": "# nothing\n"}},
		{name: "null file", args: least("--config=c"), files: map[string]string{"c": "---\n...\n"}},
		{
			name: "secret of the environment", args: least(), env: map[string]string{presharedEnv: "hush"},
			want: func(c *agentConfig) { c.Preshared = secret },
		},
		{
			name: "a secret file wins", args: least("--psk-file=p"), env: map[string]string{presharedEnv: "loud"},
			files: map[string]string{"p": "hush\r\n"}, want: func(c *agentConfig) { c.Preshared = secret },
		},
		{name: "v4 in v6", args: []string{"--node-name=n1", "--node-ip=::ffff:10.0.0.4", "--gateways=dir"}},
		{
			name: "Raven's command line",
			args: least("--vpn-driver=libreswan", "--route-driver=vxlan", "--vpn-bind-port=:4501", "--forward-node-ip", "--nat-traversal=true",
				"--keep-alive-interval=15", "--proxy-metric-bind-addr=:10266", "--health-probe-addr=127.0.0.1:10275", "--metric-bind-addr=:8080",
				"--proxy-internal-secure-addr=:10263", "--proxy-internal-insecure-addr=:10264", "--proxy-external-addr=:10262", "--v=5"),
			notes: []string{
				"--vpn-driver", "--route-driver", "--forward-node-ip", "--nat-traversal", "--keep-alive-interval", "--metric-bind-addr",
			},
			want: func(c *agentConfig) {
				c.TunnelPort, c.TLSPort, c.LogLevel = 4501, 10262, slog.LevelDebug
				c.MetricsAddr, c.HealthAddr = netip.MustParseAddrPort("10.0.0.4:10266"), netip.MustParseAddrPort("127.0.0.1:10275")
				c.ProxyTLSAddr, c.ProxyHTTPAddr = netip.MustParseAddrPort("10.0.0.4:10263"), netip.MustParseAddrPort("10.0.0.4:10264")
			},
		},
		{
			name: "our flag wins over Raven's", args: least("--tunnel-port=7", "--vpn-bind-port=:8", "-v=2"),
			want: func(c *agentConfig) { c.TunnelPort = 7 },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, notes, err := load(tt.args, tt.files, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			if tt.want != nil {
				tt.want(&want)
			}
			if d := diffConfig(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if d := cmp.Diff(tt.notes, notes); d != "" {
				t.Errorf("notes (-want +got)\n%s", d)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		file string
		want []string // each must be in the error
	}{
		{name: "nothing", want: []string{"--node-name is not set", "--node-ip is not set", "neither --kubeconfig nor --gateways is set"}},
		{name: "node name", args: least("--node-name=N1"), want: []string{`--node-name: "N1" is not the name of a node`}},
		{name: "long node name", args: least("--node-name=" + strings.Repeat("a", 254)), want: []string{"is not the name of a node"}},
		{name: "unspecified", args: least("--node-ip=0.0.0.0"), want: []string{"--node-ip: 0.0.0.0 is not"}},
		{name: "multicast", args: least("--node-ip=ff02::1"), want: []string{"--node-ip: ff02::1 is not"}},
		{name: "zone", args: least("--node-ip=fe80::1%eth0"), want: []string{`--node-ip: "fe80::1%eth0" is not`}},
		{name: "same UDP port", args: least("--vxlan-port=4500"), want: []string{"both UDP 4500"}},
		{name: "same TCP port", args: least("--health-addr=:10283"), want: []string{"--metrics-addr and --health-addr are both TCP 10283"}},
		{name: "wildcard", args: least("--health-addr=[::]:10283"), want: []string{"both TCP 10283"}},
		{name: "fallback port", args: least("--tls-port=10284"), want: []string{"--health-addr and --tls-port are both TCP 10284"}},
		{name: "half of CONNECT", args: least("--proxy-connect-cert=c", "--proxy-connect-key=k"), want: []string{"given together or not at all"}},
		{name: "CONNECT's port", args: least("--proxy-connect-addr=:10281"), want: []string{"--proxy-tls-addr and --proxy-connect-addr are both TCP 10281"}},
		{name: "relative", args: least("--hosts-file=x", "--proxy-connect-socket=y"), want: []string{`--hosts-file: "x" is not absolute`, `--proxy-connect-socket: "y" is not absolute`}},
		{name: "two sources", args: least("--kubeconfig=k"), want: []string{"exclude each other"}},
		{name: "two v4 host sources", args: least("--host-source=10.1.0.1,10.1.0.2"), want: []string{"more than one address of a family"}},
		{name: "vni", args: least("--vni=16777216"), want: []string{"--vni: "}},
		{name: "negative", args: least("--tunnel-port=-1"), want: []string{"--tunnel-port: "}},
		{name: "device", args: least("--tun-name=a/b"), want: []string{"--tun-name: "}},
		{name: "device format", args: least("--tun-name=corax%d"), want: []string{"--tun-name: "}},
		{name: "long device", args: least("--tun-name=corax0123456789a"), want: []string{"--tun-name: "}},
		{name: "socket", args: least("--socket=/" + strings.Repeat("x", 107)), want: []string{"--socket: 108 bytes long"}},
		{name: "bool", args: least("--uapi=maybe"), want: []string{`--uapi: "maybe" is neither true nor false`}},
		{name: "level", args: least("--log-level=loud"), want: []string{"--log-level: "}},
		{name: "listener", args: least("--metrics-addr=10283"), want: []string{`--metrics-addr: "10283" is not IP:PORT`}},
		{name: "listener name", args: least("--metrics-addr=localhost:1"), want: []string{`"localhost" is not an IP address`}},
		{name: "stun", args: least("--stun-server=example.com"), want: []string{"is not HOST:PORT"}},
		{name: "empty", args: least("--state-dir="), want: []string{"--state-dir: empty"}},
		{name: "Raven's port", args: least("--vpn-bind-port=:x"), want: []string{`--vpn-bind-port: "x" is not a number`}},

		{name: "list", file: "- a\n", want: []string{"c:1: not a list of settings"}},
		{name: "text", file: "hello\n", want: []string{"c:1: not a list of settings"}},
		{name: "two documents", file: "vni: 1\n---\nvni: 2\n", want: []string{"c: more than one document"}},
		{name: "not YAML", file: "vni: [1\n", want: []string{"c: yaml: line"}},
		{name: "flag name in file", file: "\ntunnel-port: 1\n", want: []string{`c:2: unknown setting "tunnel-port"`}},
		{name: "list for one value", file: "vni: [1]\n", want: []string{"c:1: vni: not a single value"}},
		{name: "nested", file: "stunServers: [[a]]\n", want: []string{"c:1: stunServers: line 1: not a single value"}},
		{name: "alias", file: "nodeName: &a n1\nstateDir: *a\n", want: []string{"c:2: stateDir: not a single value"}},
		{name: "map key", file: "{a: b}: c\n", want: []string{"c:1: unknown setting"}},
		{name: "file within file", file: "config: d\n", want: []string{`unknown setting "config"`}},
		{name: "prefix", file: "allowSources: [10.0.0.1/8]\n", want: []string{"c:1: allowSources: \"10.0.0.1/8\" has bits after its prefix: 10.0.0.0/8 is meant?"}},
		{name: "no prefix", file: "allowSources: [all]\n", want: []string{"neither a prefix nor an address"}},
		{name: "quoted bool", file: "enableTunnel: yes\n", want: []string{`c:1: enableTunnel: "yes" is neither true nor false`}},
		{name: "empty secret", file: "pskFile: c2\n", want: []string{"c:1: pskFile: c2 is empty"}},
		{name: "large", file: "# " + strings.Repeat("x", maxConfig), want: []string{"c: larger than"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.file != "" {
				args = least("--config=c")
			}
			_, _, err := load(args, map[string]string{"c": tt.file, "c2": "\n"}, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error:\n%v", want, err)
				}
			}
		})
	}
}

func TestSecretStaysOutOfErrors(t *testing.T) {
	cfg, _, err := load(least("--psk-file=p", "--vni=0"), map[string]string{"p": "hush-hush"}, map[string]string{presharedEnv: "very-secret"})
	if out := fmt.Sprintf("%v %+v", err, cfg); strings.Contains(out, "hush-hush") || strings.Contains(out, "very-secret") {
		t.Errorf("the secret shows: %s", out)
	}
}

// Every setting has a flag or a key, keys and flags are unique, and every flag of
// Raven's that is mapped names one of ours.
func TestSettingsTable(t *testing.T) {
	settings := agentSettings(new(agentConfig), nil)
	seen := map[string]bool{}
	for _, s := range settings {
		if s.key == "" || s.parse == nil || s.flag != "" && (s.usage == "" || s.arg == "") {
			t.Errorf("setting %q/%q lacks something", s.flag, s.key)
		}
		for _, name := range []string{"--" + s.flag, s.key} {
			if name != "--" && seen[name] {
				t.Errorf("%s twice", name)
			}
			seen[name] = true
		}
	}
	for _, r := range ravenFlags() {
		if (r.to == "") == (r.why == "") {
			t.Errorf("--%s is neither mapped nor ignored with a reason", r.name)
		}
		if r.to != "" && find(settings, r.to, false) == nil {
			t.Errorf("--%s is mapped to --%s, which is gone", r.name, r.to)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("nodeName: n1\nnodeIP: 10.0.0.4\n")
	f.Add("hostSource: [10.1.0.1, \"fd00::1\"]\nenableTunnel: true\n")
	f.Add("stunServers: {a: b}\nvni: &x 1\ntlsPort: *x\n")
	f.Add("---\n---\n")
	f.Add("allowSources: [10.0.0.0/8]\n# x")
	f.Fuzz(func(t *testing.T, file string) {
		cfg, _, err := load(least("--config=c"), map[string]string{"c": file}, nil)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if strings.TrimSpace(line) == "" {
					t.Errorf("an error without words: %q", err)
				}
			}
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("accepted, but not valid: %v", err)
		}
		if cfg.NodeName != "n1" || cfg.TunnelPort == 0 || cfg.VNI == 0 || cfg.VNI >= 1<<24 || cfg.TUNName == "" || cfg.StateDir == "" {
			t.Errorf("accepted: %+v", cfg)
		}
	})
}
