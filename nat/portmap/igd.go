package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

// UPnP error codes, of the device architecture and of WANIPConnection.
const (
	igdInvalidAction = 401
	igdInvalidArgs   = 402
	igdActionFailed  = 501
	igdUnsupported   = 602
	igdNotAuthorized = 606
	igdNoSuchEntry   = 714
	igdConflict      = 718
	igdSamePort      = 724
	igdOnlyPermanent = 725
	igdConflictOther = 729
)

const (
	maxServices    = 4  // tried per device
	maxPorts       = 5  // tried per mapping
	maxText        = 64 // bytes of a device's text that people see
	igdDescription = "corax"
	igdProtocol    = "UDP"
)

// connection is what the three services have in common.
type connection interface {
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, proto string, internal uint16, client string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, proto string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, proto string) (internal uint16, client string, enabled bool, description string, lease uint32, err error)
}

// anyMapper is what version 2 adds.
type anyMapper interface {
	AddAnyPortMappingCtx(ctx context.Context, remote string, external uint16, proto string, internal uint16, client string, enabled bool, description string, lease uint32) (uint16, error)
}

var (
	_ connection = (*internetgateway2.WANIPConnection1)(nil)
	_ connection = (*internetgateway2.WANIPConnection2)(nil)
	_ connection = (*internetgateway2.WANPPPConnection1)(nil)
	_ anyMapper  = (*internetgateway2.WANIPConnection2)(nil)
)

// igd is one connection service of the gateway's UPnP device.
type igd struct {
	conn     connection
	name     string // of the device, for status
	external netip.Addr
}

// findIGD finds the gateway's device and its connection with the best external
// address.
func (c *client) findIGD(ctx context.Context, gateway netip.Addr) (*igd, error) {
	if !gateway.Is4() {
		return nil, ErrNotSpoken // RFC 6970: an IGD maps IPv4
	}
	at, err := c.search(ctx, gateway)
	if err != nil {
		return nil, err
	}
	h := c.httpClient(gateway)
	root, err := describe(ctx, &h, at)
	if err != nil {
		return nil, err
	}
	services := c.services(root, gateway)
	if len(services) == 0 {
		return nil, fmt.Errorf("%w: the device has no connection service on the router", ErrNotSpoken)
	}
	best := &igd{name: clean(root.Device.FriendlyName)}
	for _, s := range services {
		for i := range s {
			s[i].SOAPClient.HTTPClient = h
		}
	}
	var firstErr error
	for _, conn := range connections(services) {
		external, err := externalOf(ctx, conn)
		if err != nil {
			firstErr = errors.Join(firstErr, err)
			continue
		}
		if best.conn == nil || public(external) && !public(best.external) {
			best.conn, best.external = conn, external
		}
	}
	if best.conn == nil {
		return nil, firstErr
	}
	return best, nil
}

// services returns the clients of each kind of service, best kind first, whose
// control URL is on the gateway.
func (c *client) services(root *goupnp.RootDevice, gateway netip.Addr) (out [][]goupnp.ServiceClient) {
	n := 0
	for _, urn := range serviceTypes() {
		var kind []goupnp.ServiceClient
		for _, s := range root.Device.FindService(urn) {
			if n == maxServices {
				break
			}
			if !s.ControlURL.Ok || !onHost(&s.ControlURL.URL, gateway) {
				c.drops.add(dropURL)
				continue
			}
			n++
			kind = append(kind, goupnp.ServiceClient{SOAPClient: s.NewSOAPClient(), RootDevice: root, Service: s})
		}
		if kind != nil {
			out = append(out, kind)
		}
	}
	return out
}

func serviceTypes() [3]string {
	return [3]string{
		internetgateway2.URN_WANIPConnection_2,
		internetgateway2.URN_WANIPConnection_1,
		internetgateway2.URN_WANPPPConnection_1,
	}
}

func connections(services [][]goupnp.ServiceClient) (out []connection) {
	for _, kind := range services {
		for _, s := range kind {
			switch s.Service.ServiceType {
			case internetgateway2.URN_WANIPConnection_2:
				out = append(out, &internetgateway2.WANIPConnection2{ServiceClient: s})
			case internetgateway2.URN_WANIPConnection_1:
				out = append(out, &internetgateway2.WANIPConnection1{ServiceClient: s})
			case internetgateway2.URN_WANPPPConnection_1:
				out = append(out, &internetgateway2.WANPPPConnection1{ServiceClient: s})
			}
		}
	}
	return out
}

func externalOf(ctx context.Context, conn connection) (netip.Addr, error) {
	s, err := conn.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, igdError(err)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}, errNoExternal
	}
	return a, nil
}

// igdError makes a refusal of a SOAP fault.
func igdError(err error) error {
	if f, ok := errors.AsType[*soap.SOAPFaultError](err); ok {
		e := f.Detail.UPnPError
		text := e.ErrorDescription
		if text == "" {
			text = f.FaultString
		}
		return &RefusedError{UPnP, e.Errorcode, clean(text), 0}
	}
	return err
}

func codeOf(err error) int {
	if e, ok := errors.AsType[*RefusedError](err); ok {
		return e.Code
	}
	return 0
}

// mapIGD asks for a mapping, first one that ends by itself.
func (c *client) mapIGD(ctx context.Context, gateway netip.Addr, d *igd, want ask) (grant, error) {
	local, err := c.local(gateway)
	if err != nil {
		return grant{}, err
	}
	external, err := externalOf(ctx, d.conn)
	if err != nil {
		return grant{}, err
	}
	life := askedFor
	port, err := d.addAny(ctx, local, want, life)
	if refusesLease(err) {
		life = 0
		port, err = d.addAny(ctx, local, want, life)
	}
	if err != nil {
		return grant{}, err
	}
	return grant{
		proto: UPnP, gateway: gateway, internal: netip.AddrPortFrom(local, want.internal),
		external: netip.AddrPortFrom(external, port), lifetime: life, igd: d,
	}, nil
}

// refusesLease reports whether the answer is, or may be, that of a device which
// knows only mappings without end.
func refusesLease(err error) bool {
	switch codeOf(err) {
	case igdOnlyPermanent, igdInvalidArgs, igdActionFailed:
		return true
	}
	return false
}

// addAny lets a device of version 2 choose the port, and tries some with others.
func (d *igd) addAny(ctx context.Context, local netip.Addr, want ask, life time.Duration) (uint16, error) {
	lease := uint32(life / time.Second)
	if v2, ok := d.conn.(anyMapper); ok {
		port, err := v2.AddAnyPortMappingCtx(ctx, "", want.external, igdProtocol, want.internal, local.String(), true, igdDescription, lease)
		switch code := codeOf(igdError(err)); {
		case err == nil && port != 0:
			return port, nil
		case err == nil:
			return 0, &RefusedError{UPnP, 0, "answered without a port", 0}
		case code != igdInvalidAction && code != igdUnsupported && code != igdConflict && code != igdConflictOther && code != igdNotAuthorized:
			return 0, igdError(err)
		}
	}
	port := want.external
	var err error
	for range maxPorts {
		if err = ctx.Err(); err != nil {
			return 0, err
		}
		err = d.add(ctx, local, port, want.internal, lease)
		switch codeOf(err) {
		case igdSamePort:
			if port == want.internal {
				return 0, err
			}
			port = want.internal
		case igdConflict, igdConflictOther:
			port = uint16(10000 + rand.N(50000))
		default:
			return port, err
		}
	}
	return 0, err
}

// add asks for one port. Some devices take another client's mapping away without
// a word, so we look first.
func (d *igd) add(ctx context.Context, local netip.Addr, external, internal uint16, lease uint32) error {
	_, owner, _, _, _, err := d.conn.GetSpecificPortMappingEntryCtx(ctx, "", external, igdProtocol)
	if err == nil && owner != local.String() {
		return &RefusedError{UPnP, igdConflict, "the port is another host's", 0}
	}
	err = d.conn.AddPortMappingCtx(ctx, "", external, igdProtocol, internal, local.String(), true, igdDescription, lease)
	return igdError(err)
}

func (c *client) unmapIGD(ctx context.Context, g grant) error {
	err := igdError(g.igd.conn.DeletePortMappingCtx(ctx, "", g.external.Port(), igdProtocol))
	if codeOf(err) == igdNoSuchEntry {
		return nil
	}
	return err
}

// clean makes a device's text fit to be shown on a terminal: short, and without
// control characters.
func clean(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
