package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"corax/proxy/outbound"
	"corax/proxy/splice"
)

// Forward is a port map as `corax forward list -o json` shows it.
type Forward struct {
	Network string `json:"network"` // tcp or udp
	Listen  string `json:"listen"`
	To      string `json:"to"`
	Open    int    `json:"open"`    // connections, or flows
	Problem string `json:"problem"` // why it does not listen; empty: it does
}

// Forwards is GET /v1/forwards.
type Forwards struct {
	Forwards []Forward `json:"forwards"`
}

// UserspaceStatus is what stands in for the TUN, and the proxies for programs of this
// node.
type UserspaceStatus struct {
	// Connections, Flows and Pings are what is open to own pods from other domains;
	// with a TUN the kernel carries that, and they are zero.
	Connections int `json:"connections"`
	Flows       int `json:"flows"`
	Pings       int `json:"pings"`
	// Proxies are the listeners for programs of this node.
	Proxies  []Door    `json:"proxies"`
	Forwards []Forward `json:"forwards"`
}

// Door is one listener for programs of this node.
type Door struct {
	Kind    string `json:"kind"` // socks or http-connect
	Address string `json:"address"`
	Problem string `json:"problem"` // why it does not listen; empty: it does
}

// userspace is that part of the status; nil when there is nothing to say.
func (a *agent) userspace() *UserspaceStatus {
	s := &UserspaceStatus{Proxies: []Door{}, Forwards: a.forwards()}
	for _, d := range a.outbound.doors {
		s.Proxies = append(s.Proxies, Door{Kind: d.kind, Address: d.at.String(), Problem: d.Problem()})
	}
	if a.rootless == nil {
		if len(s.Proxies)+len(s.Forwards) == 0 {
			return nil
		}
		return s
	}
	f := a.rootless.forward.Status()
	s.Connections, s.Flows, s.Pings = f.Connections, f.Flows, f.Pings
	return s
}

func (a *agent) forwards() []Forward {
	out := []Forward{}
	for _, m := range a.outbound.maps.List() {
		out = append(out, Forward{
			Network: m.Network, Listen: m.Listen.String(), To: net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))),
			Open: m.Open, Problem: m.Problem,
		})
	}
	return out
}

func (a *agent) addForward(m outbound.Map) error    { return a.outbound.maps.Add(m) }
func (a *agent) removeForward(m outbound.Map) error { return a.outbound.maps.Remove(m) }

func (a *agent) connect(ctx context.Context, t streamTarget) (net.Conn, error) {
	d := a.outbound.dialer
	switch {
	case t.network == "ping":
		return d.DialPing(ctx, t.host)
	case t.host == "":
		return d.DialDNS(ctx, t.network)
	case t.network == "udp":
		return d.DialUDP(ctx, t.host, t.port)
	default:
		return d.DialTCP(ctx, t.host, t.port)
	}
}

// streamProtocol is what GET /v1/connect changes the connection to: bytes.
const streamProtocol = "corax-stream"

// maxStreams bounds the streams of the local API.
const maxStreams = 512

func (l *local) serveForwards(w http.ResponseWriter, r *http.Request) {
	var m outbound.Map
	var err error
	switch {
	case l.agent.Forwards == nil:
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	case r.Method == http.MethodPost:
		if m, err = outbound.ParseMap(r.URL.Query().Get("map")); err == nil {
			err = l.agent.AddForward(m)
		}
	case r.Method == http.MethodDelete:
		if m, err = outbound.ParseKey(r.URL.Query().Get("map")); err == nil {
			err = l.agent.RemoveForward(m)
		}
	}
	switch {
	case errors.Is(err, outbound.ErrNoMap):
		writeJSON(w, http.StatusNotFound, apiError{err.Error()})
	case errors.Is(err, outbound.ErrExists):
		writeJSON(w, http.StatusConflict, apiError{err.Error()})
	case err != nil:
		writeJSON(w, http.StatusBadRequest, apiError{err.Error()})
	default:
		writeJSON(w, http.StatusOK, Forwards{l.agent.Forwards()})
	}
}

// serveConnect dials, and then the connection is the stream.
func (l *local) serveConnect(w http.ResponseWriter, r *http.Request) {
	t, err := parseStreamTarget(r)
	switch {
	case l.agent.Connect == nil:
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	case err != nil:
		writeJSON(w, http.StatusBadRequest, apiError{err.Error()})
		return
	}
	if l.open.Add(1) > maxStreams {
		l.open.Add(-1)
		writeJSON(w, http.StatusServiceUnavailable, apiError{fmt.Sprintf("%d streams are open", maxStreams)})
		return
	}
	defer l.open.Add(-1)
	l.streams.Add(1)
	defer l.streams.Done()
	far, err := l.agent.Connect(r.Context(), t)
	if err != nil {
		writeStreamError(w, err)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		splice.Abort(far)
		return
	}
	_ = c.SetDeadline(time.Time{})
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	_, err = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + streamProtocol + "\r\n\r\n"))
	if err == nil && t.network != "tcp" {
		serveDatagrams(r.Context(), c, rw.Reader, far, t.idle())
		return
	}
	if err == nil && len(early) > 0 {
		_, err = far.Write(early)
	}
	if err != nil {
		splice.Abort(far)
		splice.Abort(c)
		return
	}
	_ = l.pool.Join(r.Context(), c, far, splice.Config{})
}
