package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// found is what one protocol's question to the gateway gave.
type found struct {
	err      error
	external netip.Addr // zero: not told
	igd      *igd
}

// discovery asks one gateway by every protocol at the same time.
type discovery struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	result [UPnP + 1]chan found
}

// discover starts the questions; stop must be called.
func (c *client) discover(ctx context.Context, gateway netip.Addr) *discovery {
	ctx, cancel := context.WithCancel(ctx)
	d := &discovery{cancel: cancel}
	ways := map[Protocol]func() found{PCP: func() found {
		_, err := c.findPCP(ctx, gateway)
		return found{err: err}
	}}
	if gateway.Is4() { // the others map IPv4 only
		ways[NATPMP] = func() found {
			a, err := c.findPMP(ctx, gateway)
			return found{err: err, external: a.address}
		}
		ways[UPnP] = func() found {
			g, err := c.findIGD(ctx, gateway)
			if err != nil {
				return found{err: err}
			}
			return found{external: g.external, igd: g}
		}
	}
	for p, way := range ways {
		d.result[p] = make(chan found, 1)
		d.wg.Go(func() { d.result[p] <- way() })
	}
	return d
}

// stop ends the questions that are still open.
func (d *discovery) stop() {
	d.cancel()
	d.wg.Wait()
}

// protocols returns those asked, best first.
func (d *discovery) protocols() (out []Protocol) {
	for _, p := range []Protocol{PCP, NATPMP, UPnP} {
		if d.result[p] != nil {
			out = append(out, p)
		}
	}
	return out
}

// protocolError is the error of one protocol at one gateway.
type protocolError struct {
	proto Protocol
	err   error
}

func (e *protocolError) Error() string { return e.proto.String() + ": " + e.err.Error() }
func (e *protocolError) Unwrap() error { return e.err }

// mapAny makes a mapping with the first gateway and the best protocol that grant
// one. The error joins a protocolError for each that did not.
func (c *client) mapAny(ctx context.Context, gateways []netip.Addr, want ask) (grant, error) {
	if len(gateways) == 0 {
		return grant{}, ErrNoGateway
	}
	var errs []error
	for _, gw := range gateways {
		g, err := c.mapAt(ctx, gw, want)
		if err == nil {
			return g, nil
		}
		errs = append(errs, err)
	}
	return grant{}, errors.Join(errs...)
}

func (c *client) mapAt(ctx context.Context, gateway netip.Addr, want ask) (grant, error) {
	d := c.discover(ctx, gateway)
	defer d.stop()
	var errs []error
	for _, p := range d.protocols() {
		f := <-d.result[p]
		err := f.err
		if err == nil {
			var g grant
			if g, err = c.request(ctx, p, gateway, f.igd, want); err == nil {
				return g, nil
			}
		}
		if ctx.Err() != nil {
			return grant{}, context.Cause(ctx)
		}
		errs = append(errs, &protocolError{p, err})
	}
	return grant{}, errors.Join(errs...)
}

// request makes a mapping or renews it. It is not cancelled: an answer that
// nobody heard would leave a mapping that nobody deletes. It is short.
func (c *client) request(ctx context.Context, p Protocol, gateway netip.Addr, d *igd, want ask) (grant, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	switch p {
	case PCP:
		return c.mapPCP(ctx, gateway, want)
	case NATPMP:
		return c.mapPMP(ctx, gateway, want)
	case UPnP:
		return c.mapIGD(ctx, gateway, d, want)
	default:
		return grant{}, fmt.Errorf("no protocol %d", p)
	}
}

// Bounds for one whole request; UPnP takes several HTTP requests.
const (
	requestTime = 4 * time.Second
	removeTime  = 1 * time.Second
)

// renew asks for the mapping again, where and as it was made. An IGD may have
// moved to another port of the router since.
func (c *client) renew(ctx context.Context, g grant, want ask) (grant, error) {
	out, err := c.request(ctx, g.proto, g.gateway, g.igd, want)
	if err == nil || g.proto != UPnP || answered(err) {
		return out, err
	}
	d, lost := c.findIGD(ctx, g.gateway)
	if lost != nil {
		return grant{}, err
	}
	return c.request(ctx, UPnP, g.gateway, d, want)
}

// remove deletes a mapping, as well as that goes.
func (c *client) remove(ctx context.Context, g grant) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	switch g.proto {
	case PCP:
		return c.unmapPCP(ctx, g)
	case NATPMP:
		return c.unmapPMP(ctx, g)
	case UPnP:
		return c.unmapIGD(ctx, g)
	default:
		return nil
	}
}
