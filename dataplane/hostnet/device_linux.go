package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Indices of struct ipv4_devconf in netlink (linux/ip.h).
const (
	devconfForwarding = 1
	devconfRPFilter   = 8
)

const (
	rpFilterLoose   = 2
	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
)

// deviceConf is what the kernel says of a device's settings.
type deviceConf struct {
	v4         bool // the fields of IPv4 are known
	forwarding uint32
	rpFilter   uint32
	v6         bool // the device has IPv6
	addrGen    uint8
}

// deviceByName returns the link, or nil when there is none of that name.
func (c *rtnl) deviceByName(name string) (netlink.Link, error) {
	l, err := c.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	return l, nil
}

// syncDevice sets what the device needs to carry packets: settings first, then
// MTU, then up, so that it never gets a link-local address of its own.
func (c *rtnl) syncDevice(l netlink.Link, mtu int) (changes int, problems []Problem, err error) {
	n, problems, err := c.syncConf(l)
	changes += n
	errs := []error{err}
	a := l.Attrs()
	if mtu != 0 && a.MTU != mtu {
		if err := checkTUNMTU(mtu); err != nil {
			errs = append(errs, err)
		} else if err := c.LinkSetMTU(l, mtu); err != nil {
			errs = append(errs, fmt.Errorf("set MTU of %s to %d: %w", a.Name, mtu, err))
		} else {
			changes++
		}
	}
	if a.RawFlags&unix.IFF_UP == 0 {
		if err := c.LinkSetUp(l); err != nil {
			errs = append(errs, fmt.Errorf("set %s up: %w", a.Name, err))
		} else {
			changes++
		}
	}
	return changes, problems, errors.Join(errs...)
}

func (c *rtnl) syncConf(l netlink.Link) (changes int, problems []Problem, err error) {
	a := l.Attrs()
	conf, err := c.deviceConf(a.Index)
	if err != nil {
		return 0, nil, fmt.Errorf("read settings of %s: %w", a.Name, err)
	}
	if conf.v6 && conf.addrGen != addrGenModeNone {
		// Kernels before 3.17 refuse; a link-local address does no harm.
		if c.LinkSetIP6AddrGenMode(l, addrGenModeNone) == nil {
			changes++
		}
	}
	if ra := readSysctl("net/ipv6/conf", a.Name, "accept_ra"); conf.v6 && ra != "" && ra != "0" {
		if writeSysctl("0", "net/ipv6/conf", a.Name, "accept_ra") == nil {
			changes++
		}
	}
	if conf.v4 && conf.forwarding == 1 && conf.rpFilter == rpFilterLoose {
		return changes, nil, nil
	}
	changes++
	if c.setConf(a.Index) != nil {
		_ = writeSysctl("1", "net/ipv4/conf", a.Name, "forwarding")
		_ = writeSysctl("2", "net/ipv4/conf", a.Name, "rp_filter")
	}
	// Read again: what counts is what the kernel has.
	if conf, err = c.deviceConf(a.Index); err != nil {
		return changes, nil, fmt.Errorf("read settings of %s: %w", a.Name, err)
	}
	if conf.forwarding != 1 {
		problems = append(problems, Problem{
			"device_forwarding",
			"IPv4 packets from " + a.Name + " are not forwarded to pods", "sysctl -w net.ipv4.conf." + a.Name + ".forwarding=1",
		})
	}
	if conf.rpFilter != rpFilterLoose {
		problems = append(problems, Problem{
			"rp_filter",
			"the reverse path filter of " + a.Name + " is not loose: packets of other domains may be dropped", "sysctl -w net.ipv4.conf." + a.Name + ".rp_filter=2",
		})
	}
	return changes, problems, nil
}

// hasIPv6 reports whether the device can carry IPv6.
func (c *rtnl) hasIPv6(l netlink.Link) bool {
	conf, err := c.deviceConf(l.Attrs().Index)
	return err == nil && conf.v6 && readSysctl("net/ipv6/conf", l.Attrs().Name, "disable_ipv6") != "1"
}

// setConf sets the IPv4 settings of a device over netlink: in a container
// /proc/sys is usually read-only.
func (c *rtnl) setConf(index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	conf := nl.NewRtAttr(unix.IFLA_INET_CONF|unix.NLA_F_NESTED, nil)
	conf.AddRtAttr(devconfForwarding, binary.NativeEndian.AppendUint32(nil, 1))
	conf.AddRtAttr(devconfRPFilter, binary.NativeEndian.AppendUint32(nil, rpFilterLoose))
	inet := nl.NewRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil)
	inet.AddChild(conf)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	spec.AddChild(inet)
	_, err := c.do(unix.RTM_SETLINK, unix.NLM_F_ACK, msg, spec)
	return err
}

func (c *rtnl) deviceConf(index int) (deviceConf, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	msgs, err := c.do(unix.RTM_GETLINK, 0, msg)
	if err != nil {
		return deviceConf{}, err
	}
	if len(msgs) != 1 || len(msgs[0]) < unix.SizeofIfInfomsg {
		return deviceConf{}, fmt.Errorf("%d answers", len(msgs))
	}
	return decodeConf(msgs[0][unix.SizeofIfInfomsg:]), nil
}

// decodeConf reads the attributes of an RTM_NEWLINK payload.
func decodeConf(b []byte) (c deviceConf) {
	for _, spec := range subAttrs(b, unix.IFLA_AF_SPEC) {
		for _, inet := range subAttrs(spec, unix.AF_INET) {
			for _, v := range subAttrs(inet, unix.IFLA_INET_CONF) {
				if len(v) >= 4*devconfRPFilter {
					c.v4 = true
					c.forwarding = getU32(v[4*(devconfForwarding-1):])
					c.rpFilter = getU32(v[4*(devconfRPFilter-1):])
				}
			}
		}
		for _, inet6 := range subAttrs(spec, unix.AF_INET6) {
			for _, v := range subAttrs(inet6, unix.IFLA_INET6_ADDR_GEN_MODE) {
				if len(v) > 0 {
					c.v6, c.addrGen = true, v[0]
				}
			}
		}
	}
	return c
}

// subAttrs returns the values of all attributes of one type.
func subAttrs(b []byte, typ uint16) (out [][]byte) {
	for t, v := range attrs(b) {
		if t == typ {
			out = append(out, v)
		}
	}
	return out
}

// readSysctl returns the value without white space; empty when it cannot be
// read.
func readSysctl(path ...string) string {
	b, err := os.ReadFile(filepath.Join(append([]string{"/proc/sys"}, path...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func writeSysctl(value string, path ...string) error {
	return os.WriteFile(filepath.Join(append([]string{"/proc/sys"}, path...)...), []byte(value), 0o644)
}
