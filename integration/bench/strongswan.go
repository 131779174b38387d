//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"corax/integration/lab"
)

// Where Debian's packages have them.
const (
	charonPath   = "/usr/lib/ipsec/charon"
	libipsecPath = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"
)

// charonConfig makes strongSwan do ESP itself, over UDP and a TUN device: what is
// left where the kernel has no IPsec. The kernel-libipsec plugin comes before
// kernel-netlink, which then only does routes.
const charonConfig = `charon {
  load = aes sha1 sha2 hmac kdf openssl gcm curve25519 random nonce kernel-libipsec kernel-netlink socket-default vici
  filelog { stderr { default = 0 } }
}
`

// startLibipsec connects the gateways by strongSwan with kernel-libipsec, and
// with the kernel's VXLAN behind it.
func startLibipsec(ctx context.Context, n *network) (gateways, error) {
	if err := n.startRaven(); err != nil {
		return gateways{}, err
	}
	secret := rand.Text()
	return startBoth(n, func(i int, s *side) (*lab.Process, error) {
		daemon := filepath.Join(s.gw.Dir(), "strongswan.conf")
		if err := os.WriteFile(daemon, []byte(charonConfig), 0o600); err != nil {
			return nil, err
		}
		connection := filepath.Join(s.gw.Dir(), "swanctl.conf")
		if err := os.WriteFile(connection, []byte(swanctlConfig(n, i, secret)), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.Command(charonPath)
		cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+daemon)
		p, err := s.gw.Start("charon", cmd)
		if err != nil {
			return nil, err
		}
		return p, until(ctx, func() error {
			_, err := s.gw.Run(ctx, "swanctl", "--load-all", "--file", connection)
			return err
		})
	})
}

// swanctlConfig makes side b, which is configured last, initiate.
func swanctlConfig(n *network, i int, secret string) string {
	own, other := n.sides[i], n.sides[1-i]
	return fmt.Sprintf(`connections {
  bench {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = aes128gcm16-prfsha256-curve25519
    local { auth = psk
      id = %s
    }
    remote { auth = psk
      id = %s
    }
    children {
      pods {
        local_ts = %s
        remote_ts = %s
        esp_proposals = aes128gcm16
        start_action = %s
      }
    }
  }
}
secrets {
  ike-bench { secret = "%s"
  }
}
`, own.wanIP, other.wanIP, own.gw.Name, other.gw.Name, selector(own), selector(other),
		[2]string{"none", "start"}[i], secret)
}

// selector returns both subnets of a domain as one: the gateway must have an
// address in each traffic selector, or the plugin installs no route for it.
func selector(s *side) netip.Prefix {
	return netip.PrefixFrom(s.gw.Subnets[0].Addr(), s.gw.Subnets[0].Bits()-1).Masked()
}
