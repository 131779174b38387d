package portmap

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The lab: a LAN host, a router with miniupnpd, and a host on the Internet, each
// a network namespace. The external address must look public to miniupnpd.
const (
	lanHost   = "192.168.77.2"
	lanRouter = "192.168.77.1"
	lanHost6  = "2001:db8:77::2"
	wanRouter = "93.184.216.1"
	wanHost   = "93.184.216.9"
	wanHost6  = "2001:db8:99::9"
)

type router struct {
	t                *testing.T
	lan, router, wan int // namespaces
	daemon, dir      string
	gateway6         netip.Addr // the router's link-local address, as the LAN host names it
	cmd              *exec.Cmd
	out              *bytes.Buffer
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inNS runs f on a thread of its own in a namespace.
func inNS(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with f
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func newNS(t *testing.T) int {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: err}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		skip(t, "no permission to make a network namespace: "+r.err.Error())
	}
	t.Cleanup(func() { unix.Close(r.fd) })
	return r.fd
}

func addAddr(name string, prefixes ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		if err != nil {
			return err
		}
		a.Flags |= unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// veth makes a pair: a in this namespace, b in another.
func veth(a, b string, other int) error {
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b, PeerNamespace: netlink.NsFd(other)}
	return netlink.LinkAdd(v)
}

func defaultRoute(link string, gws ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, gw := range gws {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw), LinkIndex: l.Attrs().Index}); err != nil {
			return fmt.Errorf("route by %s: %w", gw, err)
		}
	}
	return nil
}

// newRouter makes the lab; startDaemon starts miniupnpd.
func newRouter(t *testing.T) *router {
	t.Helper()
	daemon, err := exec.LookPath("miniupnpd")
	if err != nil {
		daemon, err = exec.LookPath("/usr/sbin/miniupnpd")
	}
	if err != nil {
		skip(t, "no miniupnpd (Debian package miniupnpd-nftables)")
	}
	r := &router{t: t, daemon: daemon, lan: newNS(t), router: newNS(t), wan: newNS(t), dir: t.TempDir()}
	must(t, inNS(r.router, func() error {
		if err := veth("lan", "lan", r.lan); err != nil {
			return err
		}
		if err := veth("wan", "wan", r.wan); err != nil {
			return err
		}
		for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := os.WriteFile(filepath.Join("/proc/sys", s), []byte("1"), 0o644); err != nil {
				return err
			}
		}
		if err := addAddr("lan", lanRouter+"/24", "2001:db8:77::1/64", "fe80::77:1/64"); err != nil {
			return err
		}
		if err := addAddr("wan", wanRouter+"/24", "2001:db8:99::1/64"); err != nil {
			return err
		}
		return firewall()
	}))
	must(t, inNS(r.lan, func() error {
		if err := addAddr("lan", lanHost+"/24", lanHost6+"/64"); err != nil {
			return err
		}
		l, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		r.gateway6 = netip.MustParseAddr(fmt.Sprintf("fe80::77:1%%%d", l.Attrs().Index))
		return defaultRoute("lan", lanRouter, "fe80::77:1")
	}))
	must(t, inNS(r.wan, func() error {
		if err := addAddr("wan", wanHost+"/24", wanHost6+"/64"); err != nil {
			return err
		}
		return defaultRoute("wan", "2001:db8:99::1")
	}))
	return r
}

// firewall makes the chains that miniupnpd fills, and drops what it does not let
// in. It is also what makes the router forget: it flushes first.
func firewall() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.FlushRuleset()
	tb := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyINet})
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, policy nftables.ChainPolicy, jump string) {
		c.AddChain(&nftables.Chain{Table: tb, Name: jump})
		ch := c.AddChain(&nftables.Chain{Table: tb, Name: name, Type: typ, Hooknum: hook, Priority: prio, Policy: &policy})
		c.AddRule(&nftables.Rule{Table: tb, Chain: ch, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: jump}}})
	}
	chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop, "miniupnpd")
	chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, nftables.ChainPolicyAccept, "prerouting_miniupnpd")
	chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept, "postrouting_miniupnpd")
	return c.Flush()
}

// dropPCP makes the router deaf to PCP version 2.
func dropPCP() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tb := c.AddTable(&nftables.Table{Name: "deaf", Family: nftables.TableFamilyINet})
	accept := nftables.ChainPolicyAccept
	ch := c.AddChain(&nftables.Chain{Table: tb, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	match := func(offset uint32, want ...byte) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(want))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
		}
	}
	rule := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
	}
	rule = append(rule, match(2, serverPort>>8, serverPort&0xff)...)
	rule = append(rule, match(8, pcpVersion)...)
	c.AddRule(&nftables.Rule{Table: tb, Chain: ch, Exprs: append(rule, &expr.Verdict{Kind: expr.VerdictDrop})})
	return c.Flush()
}

// startDaemon starts miniupnpd with more options, one "key=value" each.
func (r *router) startDaemon(options ...string) {
	r.t.Helper()
	conf := "ext_ifname=wan\next_ifname6=wan\nlistening_ip=lan\nhttp_port=0\nsystem_uptime=no\nsecure_mode=yes\n" +
		"upnp_table_name=filter\nupnp_nat_table_name=filter\nupnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n" +
		"notify_interval=60\nuuid=6b6a4f7e-6d9c-4d34-a07f-6d2b3d4f1a10\nallow 1024-65535 192.168.77.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
	for _, o := range options {
		conf += o + "\n"
	}
	file := filepath.Join(r.dir, "miniupnpd.conf")
	must(r.t, os.WriteFile(file, []byte(conf), 0o600))
	r.out = new(bytes.Buffer)
	r.cmd = exec.Command(r.daemon, "-d", "-f", file, "-P", filepath.Join(r.dir, "pid"))
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	must(r.t, inNS(r.router, r.cmd.Start))
	cmd := r.cmd
	r.t.Cleanup(func() {
		if r.cmd == cmd {
			r.stopDaemon()
		}
		if r.t.Failed() {
			r.t.Logf("miniupnpd:\n%s", r.out)
		}
	})
}

func (r *router) stopDaemon() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

// udp opens a socket in a namespace.
func (r *router) udp(ns int, at string) *net.UDPConn {
	r.t.Helper()
	var c *net.UDPConn
	must(r.t, inNS(ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		return err
	}))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// arrives sends a packet from one socket to an address until it, or nothing for
// a second, comes out at the other.
func arrives(t *testing.T, from *net.UDPConn, to netip.AddrPort, at *net.UDPConn) bool {
	t.Helper()
	text := []byte(t.Name() + time.Now().String())
	buf := make([]byte, 1500)
	for range 4 {
		_, err := from.WriteToUDPAddrPort(text, to)
		if err != nil {
			return false // an ICMP error of the packet before
		}
		_ = at.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		for {
			n, src, err := at.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if bytes.Equal(buf[:n], text) {
				if want := from.LocalAddr().(*net.UDPAddr).AddrPort(); src.Port() != want.Port() || src.Addr().Unmap() != want.Addr().Unmap() {
					t.Fatalf("arrived from %v, sent from %v", src, want)
				}
				return true
			}
		}
	}
	return false
}
