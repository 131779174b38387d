package charttest

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// values parses what would stand in a file of values.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRefused lists what the chart does not install, and why.
func TestRefused(t *testing.T) {
	tests := []struct {
		name, values, kubernetes, namespace string
		want                                string
	}{
		{name: "an unknown value", values: "prest: openyurt", want: "prest"},
		{name: "an unknown value below", values: "agent: {profil: net-admin}", want: "profil"},
		{name: "an unknown preset", values: "preset: raven", want: "preset"},
		{name: "an unknown profile", values: "agent: {profile: privileged}", want: "profile"},
		{name: "a switch that is text", values: `controller: {enableProxy: "true"}`, want: "enableProxy"},
		{name: "an allow list that is none", values: "accessControlListEntry: 203.0.113.7", want: "accessControlListEntry"},
		{name: "an allow list with blanks", values: "accessControlListEntry: 203.0.113.0/24 198.51.100.0/24", want: "accessControlListEntry"},
		{name: "a cluster id for another path", values: "clusterId: a/b", want: "clusterId"},
		{name: "a digest that is none", values: "image: {digest: latest}", want: "digest"},
		{name: "no image", values: `image: {repository: ""}`, want: "repository"},
		{name: "no controller", values: "controller: {replicas: 0}", want: "replicas"},
		{name: "too many gateway nodes", values: "controller: {tunnelReplicas: 9}", want: "tunnelReplicas"},
		{name: "an unknown log level", values: "logLevel: loud", want: "logLevel"},
		{name: "a STUN server without port", values: "agent: {stunServers: [stun.example.com]}", want: "stunServers"},
		{name: "a socket where the agent may not write", values: "proxy: {connect: {socket: /run/x.sock}}", want: "socket"},
		{name: "Services without a prefix", values: "agent: {serviceCIDRs: [10.96.0.1]}", want: "serviceCIDRs"},
		{name: "a port that is none", values: `vpn: {tunnelAddr: "4500"}`, want: "tunnelAddr"},

		{name: "Kubernetes that is too old", kubernetes: "1.25.0", values: "identity: {insecure: true}", want: "1.26"},
		{name: "unbound keys", kubernetes: "1.29.9", want: "identity.insecure"},
		{name: "another namespace", namespace: "corax", want: "kube-system"},
		{name: "the key of CONNECT on edges", values: "{preset: openyurt, proxy: {connect: {existingSecret: egress}}}", want: "every edge node"},
		{name: "the cluster for everybody", values: "proxy: {connect: {existingSecret: egress, cluster: [10.96.0.0/12]}}", want: "proxy.connect.clients"},
		{name: "an address of CONNECT that is none", values: "proxy: {connect: {clusterIP: front}}", want: "clusterIP"},
		{name: "two kubelet CAs", values: "proxy: {kubeletCA: {configMap: a, file: /b}}", want: "which of them"},
		{name: "a kubelet CA that is no file", values: "proxy: {kubeletCA: {file: ca.crt}}", want: "file"},
		{name: "a cluster domain with a dot", values: "clusterDomain: cluster.local.", want: "clusterDomain"},
		{name: "a mount to nowhere", values: "agent: {extraVolumeMounts: [{name: x}]}", want: "mountPath"},
		{name: "openyurt without its ports", values: "{preset: openyurt, agent: {profile: unprivileged}}", want: "net-admin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Render(Target{Values: values(t, tt.values), Kubernetes: tt.kubernetes, Namespace: tt.namespace})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
		})
	}
}

// TestRendered lists values, and what comes of them. Whatever they are, every
// document must parse, and none be there twice.
func TestRendered(t *testing.T) {
	tests := []struct {
		name, values, kubernetes string
		want, not                []string
	}{
		{
			name: "defaults",
			want: []string{
				`enable-l7-proxy: "true"`, `enable-l3-tunnel: "false"`, `acl-entry: ""`, "kind: CustomResourceDefinition",
				"helm.sh/resource-policy: keep", "--state-dir=/var/lib/corax/state", "helm.sh/hook: pre-delete", `image: "corax:0.1.0"`,
			},
			not: []string{"--cluster-id", "--take-over", "--psk-file", "KUBERNETES_SERVICE_HOST", "kind: Secret", "PodMonitor", "system:nodes\n", "--proxy-connect", "--proxy-audience", "--kubelet-ca", "--cluster-domain", "sysctls", "x-raven-proxy-connect", "--service-cidr", "resources: [services]\n    verbs: [list, watch]"},
		},
		{
			name:   "addresses of Services",
			values: "agent: {serviceCIDRs: [10.96.0.0/12, fd00:96::/112]}",
			want: []string{
				"- --service-cidr=10.96.0.0/12\n", "- --service-cidr=fd00:96::/112\n", "resources: [services]\n    verbs: [list, watch]",
				"resources: [endpointslices]\n    verbs: [list, watch]",
			},
		},
		{
			name:   "the owner's names",
			values: "{controller: {enableProxy: false, enableTunnel: true}, accessControlListEntry: \"203.0.113.0/24, 100.64.0.0/10\", clusterId: c1a2}",
			want:   []string{`enable-l7-proxy: "false"`, `enable-l3-tunnel: "true"`, `acl-entry: "203.0.113.0/24, 100.64.0.0/10"`, "--cluster-id=c1a2"},
		},
		{
			name:   "Raven's values file",
			values: ravenValues,
			want:   []string{"name: raven-agent-ds", "--preset=openyurt", "--tls-port=10262", "--health-addr=:10275", `enable-l3-tunnel: "true"`, "VPN_CONNECTION_PSK"},
			not:    []string{"privileged: true", "libreswan", "kind: Deployment", "CustomResourceDefinition", "uninstall", "corax-hub", "corax-controller"},
		},
		{
			name:   "a secret of one's own",
			values: "vpn: {existingSecret: mine, psk: ignored}",
			want:   []string{"secretName: mine", "--psk-file=/etc/corax/psk/vpn-connection-psk"},
			not:    []string{"kind: Secret", "ignored"},
		},
		{
			name:   "a secret that the chart makes",
			values: "vpn: {psk: s3cret}",
			want:   []string{"secretName: corax-psk", `vpn-connection-psk: "s3cret"`},
		},
		{
			name:       "before 1.30",
			values:     "identity: {insecure: true}",
			kubernetes: "1.28.3",
			want:       []string{"kind: DaemonSet", "- agent\n            - --identity-insecure", "- controller\n            - --identity-insecure"},
			not:        []string{"ValidatingAdmissionPolicy"},
		},
		{
			name:       "a vendor's version",
			values:     "identity: {insecure: true}",
			kubernetes: "v1.30.1-aliyun.1",
			want:       []string{"ValidatingAdmissionPolicy"},
			not:        []string{"--identity-insecure"},
		},
		{
			name:   "everything on",
			values: everything,
			want: []string{
				"kind: PodMonitor", "kind: PrometheusRule", "alert: CoraxAgentDown", "{{ $labels.instance }}", "corax.json: |-", "release: prometheus",
				"--take-over", "--stun-server=stun.example.com:3478", "KUBERNETES_SERVICE_HOST", `value: "10.0.0.1"`, "corax@sha256:",
				"--expose-cloud=LoadBalancer", "--cloud-domains=a,b", "--disable=names", "name: system:nodes", "type: OnDelete", "imagePullSecrets",
				"--datapath=tun", `- "--vni=201"`, "name: HTTPS_PROXY",
			},
			not: []string{"maxUnavailable: 20%", "helm.sh/resource-policy"},
		},
		{
			name:   "unprivileged",
			values: "agent: {profile: unprivileged}",
			want:   []string{"--datapath=netstack", "fieldPath: status.podIP", "runAsNonRoot: true"},
			not:    []string{"hostNetwork", "hostPath", "NET_ADMIN", "runAsUser: 0"},
		},
		{
			name:   "a kubelet CA",
			values: "{clusterDomain: k8s.example.org, proxy: {kubeletCA: {configMap: kubelets, key: ca.pem}}}",
			want: []string{
				"--kubelet-ca=/etc/corax/kubelet-ca/ca.crt", "name: kubelets\n            items:\n              - key: ca.pem\n                path: ca.crt",
				"mountPath: /etc/corax/kubelet-ca", "- --cluster-domain=k8s.example.org", "--domain-label=apps.openyurt.io/nodepool\n            - --cluster-domain=k8s.example.org",
			},
		},
		{
			name: "a kubelet CA in a file",
			values: "{proxy: {kubeletCA: {file: /etc/pki/ca.pem}}, agent: {extraVolumes: [{name: pki, hostPath: {path: /etc/pki, type: Directory}}], " +
				"extraVolumeMounts: [{name: pki, mountPath: /etc/pki, readOnly: true}]}}",
			want: []string{"--kubelet-ca=/etc/pki/ca.pem", "path: /etc/pki\n            type: Directory", "- mountPath: /etc/pki\n              name: pki\n              readOnly: true"},
		},
		{
			name:   "CONNECT",
			values: "proxy: {audiences: [corax], connect: {existingSecret: egress, clusterIP: 10.96.0.8, clients: [kube-apiserver], cluster: [10.96.0.0/12, 'fd00::/108'], socket: /var/lib/corax/connect.sock}}",
			want: []string{
				"secretName: egress", "--proxy-connect-cert=/etc/corax/connect/tls.crt", "--proxy-connect-client-ca=/etc/corax/connect/ca.crt",
				"--proxy-connect-client=kube-apiserver", "--proxy-connect-cluster=10.96.0.0/12", "--proxy-connect-cluster=fd00::/108", "--proxy-connect-socket=/var/lib/corax/connect.sock", "--proxy-audience=corax",
				"name: x-raven-proxy-connect\n  namespace: kube-system", "clusterIP: \"10.96.0.8\"\n  ports:\n    - name: connect\n      port: 10295\n      targetPort: 10295",
			},
		},
		{
			name:   "CONNECT by a socket alone",
			values: "proxy: {connect: {socket: /var/lib/corax/connect.sock}}",
			not:    []string{"x-raven-proxy-connect"},
		},
		{
			name:   "no CRD",
			values: "crd: {install: false}",
			not:    []string{"CustomResourceDefinition"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, err := Render(Target{Values: values(t, tt.values), Kubernetes: tt.kubernetes})
			if err != nil {
				t.Fatal(err)
			}
			all := All(files)
			checkDocuments(t, all)
			for _, want := range tt.want {
				if !strings.Contains(all, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(all, not) {
					t.Errorf("has %q", not)
				}
			}
		})
	}
}

// checkDocuments parses every document, strictly.
func checkDocuments(t *testing.T, all string) {
	t.Helper()
	seen := map[string]bool{}
	for doc := range strings.SplitSeq(all, "\n---\n") {
		doc = strings.TrimPrefix(doc, "---\n")
		var o struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		}
		var whole map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &whole); err != nil {
			t.Errorf("%v\n%s", err, doc)
		} else if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Errorf("%v\n%s", err, doc)
		}
		id := o.Kind + " " + o.Metadata.Namespace + " " + o.Metadata.Name
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" || seen[id] {
			t.Errorf("%q is incomplete, or there twice:\n%s", id, doc)
		}
		seen[id] = true
	}
	if len(seen) < 8 {
		t.Errorf("only %d objects", len(seen))
	}
}

// TestNotes reads what Helm says after an installation.
func TestNotes(t *testing.T) {
	tests := []struct {
		name, values, kubernetes string
		want, not                []string
	}{
		{
			name: "defaults",
			want: []string{
				"kubectl get gateways", "by node name): on", "pod to pod):              off", "kubectl delete crd",
				"corax doctor --node", "--hosts /var/lib/corax/state/hosts", "docs/proxy.md", "\"Steer the API server\", \"metrics-server\", \"Prometheus\"",
			},
			not: []string{"WARNING", "x-raven-proxy-connect"},
		},
		{name: "no proxy mode", values: "controller: {enableProxy: false}", not: []string{"corax doctor", "docs/proxy.md"}},
		{name: "CONNECT", values: "proxy: {connect: {existingSecret: egress}}", want: []string{"get service x-raven-proxy-connect"}},
		{name: "openyurt", values: "preset: openyurt", want: []string{"raven-agent-ds", "libreswan", "--hosts /var/lib/raven/corax/hosts"}, not: []string{"kubectl delete crd"}},
		{name: "unbound", values: "identity: {insecure: true}", kubernetes: "1.29.0", want: []string{"WARNING: Kubernetes v1.29.0"}},
		{name: "the secret that everybody knows", values: "vpn: {psk: OPENYURT-RAVEN-AGENT-VPN-PSK}", want: []string{"WARNING: vpn.psk"}},
		{name: "no health checks", values: "accessControlListEntry: 203.0.113.0/24", want: []string{"WARNING: accessControlListEntry"}},
		{name: "health checks", values: "accessControlListEntry: \"203.0.113.0/24,100.64.0.0/10\"", not: []string{"WARNING"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, err := Render(Target{Values: values(t, tt.values), Kubernetes: tt.kubernetes})
			if err != nil {
				t.Fatal(err)
			}
			notes := files["NOTES.txt"]
			for _, want := range tt.want {
				if !strings.Contains(notes, want) {
					t.Errorf("lacks %q:\n%s", want, notes)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(notes, not) {
					t.Errorf("has %q:\n%s", not, notes)
				}
			}
		})
	}
}

// TestDefaultsAreDocumented: every value of the schema that is not Raven's is in
// values.yaml, which strictness would not notice.
func TestDefaultsAreDocumented(t *testing.T) {
	c := load(t)
	var schema map[string]any
	if err := yaml.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, schema, values map[string]any)
	walk = func(path string, schema, values map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			sub, _ := p.(map[string]any)
			if d, _ := sub["description"].(string); strings.HasPrefix(d, "Raven's") || name == "global" {
				continue
			}
			v, ok := values[name]
			if !ok {
				t.Errorf("values.yaml lacks %s%s", path, name)
			}
			if below, ok := v.(map[string]any); ok {
				walk(path+name+".", sub, below)
			}
		}
	}
	walk("", schema, c.Values)
}

// ravenValues is what users of Raven's chart have, with the image exchanged.
const ravenValues = `
preset: openyurt
image: {repository: corax, pullPolicy: IfNotPresent, tag: v1}
imagePullSecrets: []
nameOverride: ""
fullnameOverride: ""
healthyBindAddr: ":10275"
serviceAccount: {create: true, annotations: {}, name: raven-agent-account}
podAnnotations: {}
podSecurityContext: {}
securityContext: {privileged: true}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
containerEnv: [{name: NODE_NAME}]
sync: {syncRule: true, syncPeriod: 30m}
vpn: {driver: libreswan, forwardNodeIP: false, natTraversal: false, keepAliveInterval: 15, keepAliveTimeout: 30, psk: abc, metricBindAddr: ":10265", tunnelAddr: ":4500"}
controller: {enableProxy: true, enableTunnel: true}
proxy: {externalAddr: ":10262", internalInsecureAddr: ":10264", internalSecureAddr: ":10263", metricsBindAddr: ":10266"}
rollingUpdate: {maxUnavailable: 20%}
`

const everything = `
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: pull}]
controller:
  takeOver: true
  exposeCloud: LoadBalancer
  cloudDomains: [a, b]
  disable: [names]
agent:
  takeOver: true
  datapath: tun
  stunServers: ["stun.example.com:3478"]
  extraArgs: ["--vni=201"]
  extraEnv: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
identity: {kubelets: true}
crd: {keep: false}
apiServer: {host: 10.0.0.1}
updateStrategy: OnDelete
podAnnotations: {a: b}
podLabels: {c: d}
metrics:
  podMonitor: {enabled: true, labels: {release: prometheus}}
  rules: {enabled: true, labels: {release: prometheus}}
  dashboard: {enabled: true}
`
