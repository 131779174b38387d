package portmap

import (
	"context"
	"errors"
	"net/netip"
	"strings"
)

// Report is what the default router can do, for people.
type Report struct {
	// Gateway and Gateway6 are the routers that were asked; zero: there is none.
	Gateway, Gateway6 netip.Addr
	// PCP, NATPMP and UPnP say that the IPv4 router speaks it; PCP6 that the
	// IPv6 router speaks PCP.
	PCP, NATPMP, UPnP, PCP6 bool
	// External is the router's IPv4 address on its other side; zero when it
	// did not tell one.
	External netip.Addr
	// DoubleNAT says that External is no public address.
	DoubleNAT bool
	// Device is what the UPnP device calls itself; untrusted text.
	Device string
	// The reasons for each that is false.
	PCPErr, NATPMPErr, UPnPErr, PCP6Err error
}

// Probe asks the first default router of each family what it speaks, and maps
// nothing. It takes about two seconds when nothing answers, and may be called
// at any time, also without Run.
func (m *Mapper) Probe(ctx context.Context) Report {
	var r Report
	var d4, d6 *discovery
	if gws := m.v4.gateways(); len(gws) > 0 {
		r.Gateway = gws[0]
		d4 = m.client.discover(ctx, gws[0])
		defer d4.stop()
	}
	if gws := m.v6.gateways(); len(gws) > 0 {
		r.Gateway6 = gws[0]
		d6 = m.client.discover(ctx, gws[0])
		defer d6.stop()
	}
	r.PCPErr, r.NATPMPErr, r.UPnPErr, r.PCP6Err = ErrNoGateway, ErrNoGateway, ErrNoGateway, ErrNoGateway
	if d4 != nil {
		pcp, pmp, upnp := <-d4.result[PCP], <-d4.result[NATPMP], <-d4.result[UPnP]
		r.PCPErr, r.NATPMPErr, r.UPnPErr = pcp.err, pmp.err, upnp.err
		r.External = pmp.external
		if !r.External.IsValid() {
			r.External = upnp.external
		}
		if upnp.igd != nil {
			r.Device = upnp.igd.name
		}
	}
	if d6 != nil {
		r.PCP6Err = (<-d6.result[PCP]).err
	}
	if s := m.v4.view.Load(); !r.External.IsValid() && s.Protocol != None && s.Gateway == r.Gateway {
		r.External = s.External.Addr() // PCP tells it only with a mapping
	}
	r.PCP, r.NATPMP, r.UPnP, r.PCP6 = r.PCPErr == nil, r.NATPMPErr == nil, r.UPnPErr == nil, r.PCP6Err == nil
	r.DoubleNAT = r.External.IsValid() && !public(r.External)
	return r
}

// String says in one sentence what the router can do.
func (r Report) String() string {
	if !r.Gateway.IsValid() && !r.Gateway6.IsValid() {
		return "no default router"
	}
	var has []string
	for _, p := range []struct {
		ok   bool
		name string
	}{{r.PCP, "PCP"}, {r.NATPMP, "NAT-PMP"}, {r.UPnP, "UPnP IGD"}, {r.PCP6, "PCP for IPv6"}} {
		if p.ok {
			has = append(has, p.name)
		}
	}
	if len(has) == 0 {
		return "the router maps no ports: " + r.why()
	}
	s := "the router maps ports by " + strings.Join(has, ", ")
	switch {
	case r.DoubleNAT:
		s += "; its external address " + r.External.String() + " is not public: there is another NAT in front of it"
	case r.External.IsValid():
		s += "; its external address is " + r.External.String()
	}
	return s
}

func (r Report) why() string {
	var errs []error
	for _, e := range []protocolError{{PCP, r.PCPErr}, {NATPMP, r.NATPMPErr}, {UPnP, r.UPnPErr}} {
		if e.err != nil && r.Gateway.IsValid() {
			errs = append(errs, &e)
		}
	}
	if !r.Gateway.IsValid() && r.PCP6Err != nil {
		errs = append(errs, &protocolError{PCP, r.PCP6Err})
	}
	return oneLine(errors.Join(errs...))
}

// oneLine is the text of joined errors.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
