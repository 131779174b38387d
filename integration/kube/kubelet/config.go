//go:build linux

package kubelet

import (
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

type object = map[string]any

// containerdConfig works without CAP_SYS_RESOURCE, AppArmor and CNI plugins: what
// is in the folder of CNI configurations only makes the node ready.
const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + Image + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "%s"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

const cniConfig = `{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}`

// kubeletConfig is the KubeletConfiguration.
func kubeletConfig(caFile string, webSockets bool) ([]byte, error) {
	return yaml.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": caFile},
		},
		"authorization":               object{"mode": "Webhook"},
		"cgroupDriver":                "cgroupfs",
		"failCgroupV1":                false,
		"failSwapOn":                  false,
		"serverTLSBootstrap":          true, // its certificate comes from a CSR
		"readOnlyPort":                10255,
		"makeIPTablesUtilChains":      false,
		"enforceNodeAllocatable":      []string{"pods"},
		"evictionHard":                object{"memory.available": "1Mi"},
		"imageGCHighThresholdPercent": 100,
		"containerRuntimeEndpoint":    "unix:///run/containerd/containerd.sock",
		"resolvConf":                  "",
		"featureGates":                object{"ExtendWebSocketsToKubelet": webSockets},
	})
}

// files writes what machine.sh and its programs read.
func (k *Kubelet) files(caFile string, kubeconfig []byte) error {
	kubelet, err := kubeletConfig(caFile, !k.cfg.SPDY)
	if err != nil {
		return err
	}
	cni := filepath.Join(k.dir, "cni")
	if err := os.MkdirAll(cni, 0o755); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"machine.sh":        machine,
		"containerd.toml":   fmt.Appendf(nil, containerdConfig, cni),
		"cni/none.conflist": []byte(cniConfig),
		"kubelet.yaml":      kubelet,
		"kubeconfig":        kubeconfig,
		"node-ip":           []byte(k.cfg.Node.IP.String()),
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), data, 0o700); err != nil {
			return err
		}
	}
	return writeImage(filepath.Join(k.dir, "image.tar"))
}
