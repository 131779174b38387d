package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"corax/proxy/outbound"
)

// streamConn is a stream of the local API.
type streamConn struct {
	*net.UnixConn
	r *bufio.Reader
}

// Read reads what came with the answer first.
func (s *streamConn) Read(b []byte) (int, error) { return s.r.Read(b) }

// Stream asks the agent for a connection; query names it.
func (c *client) Stream(ctx context.Context, query url.Values) (*streamConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, c.noAgent(err)
	}
	s := &streamConn{conn.(*net.UnixConn), bufio.NewReader(conn)}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if err := c.upgrade(ctx, s, query); err != nil || !stop() {
		_ = conn.Close()
		if err == nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return s, nil
}

// upgrade makes a stream of a connection with the agent.
func (c *client) upgrade(ctx context.Context, s *streamConn, query url.Values) error {
	u := url.URL{Scheme: "http", Host: "corax", Path: "/v1/connect", RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", streamProtocol)
	_ = s.SetDeadline(time.Now().Add(maxAnswer))
	if err := req.Write(s.UnixConn); err != nil {
		return c.noAgent(err)
	}
	resp, err := http.ReadResponse(s.r, req)
	if err != nil {
		return c.noAgent(err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return s.SetDeadline(time.Time{})
	}
	defer resp.Body.Close()
	e := streamError{}
	if json.NewDecoder(io.LimitReader(resp.Body, maxHeader)).Decode(&e) != nil || e.Text == "" {
		e.Text = resp.Status
	}
	return &e
}

// streamError is why the agent did not connect.
type streamError struct {
	Text  string `json:"error"`
	Cause string `json:"cause"` // one of streamCauses; empty: another
}

// Error implements error.
func (e *streamError) Error() string { return e.Text }

// Unwrap returns the error of the system that stands for the cause.
func (e *streamError) Unwrap() error {
	for _, c := range streamCauses {
		if c.name == e.Cause {
			return c.is[0]
		}
	}
	return nil
}

// streamCauses are what a program may have to know of an error, by name.
var streamCauses = []struct {
	name string
	is   []error
}{
	{"refused", []error{syscall.ECONNREFUSED}},
	{"forbidden", []error{syscall.EACCES, outbound.ErrForbidden}},
	{"unreachable", []error{syscall.EHOSTUNREACH, syscall.ENETUNREACH, outbound.ErrNoService, outbound.ErrNoName}},
	{"timeout", []error{syscall.ETIMEDOUT, context.DeadlineExceeded, os.ErrDeadlineExceeded}},
}

// writeStreamError answers a request for a stream that there is none.
func writeStreamError(w http.ResponseWriter, err error) {
	e := streamError{Text: err.Error()}
	for _, c := range streamCauses {
		for _, is := range c.is {
			if e.Cause == "" && errors.Is(err, is) {
				e.Cause = c.name
			}
		}
	}
	writeJSON(w, http.StatusBadGateway, e)
}

// streamTarget is what a request for a stream names.
type streamTarget struct {
	network string // tcp, udp or ping
	host    string // empty: the cluster's name server
	port    uint16 // zero: ping
}

// idlePing is how long a program may pause between two pings.
const idlePing = 75 * time.Second

// idle is how long datagrams may rest.
func (t streamTarget) idle() time.Duration {
	if t.network == "ping" {
		return idlePing
	}
	return outbound.Idle(t.port, true)
}

func parseStreamTarget(r *http.Request) (streamTarget, error) {
	t := streamTarget{network: r.URL.Query().Get("network"), host: r.URL.Query().Get("host")}
	if t.network == "" {
		t.network = "tcp"
	}
	dns := r.URL.Query().Get("dns") == "true"
	ping := t.network == "ping"
	switch {
	case r.Header.Get("Upgrade") != streamProtocol:
		return t, fmt.Errorf("the header Upgrade: %s is needed", streamProtocol)
	case t.network != "tcp" && t.network != "udp" && !ping:
		return t, fmt.Errorf("network %q is none of tcp, udp and ping", t.network)
	case ping && !dns && t.host != "":
		return t, nil
	case ping:
		return t, errors.New("a host is needed")
	case dns && t.host == "":
		return t, nil
	case dns || t.host == "" || port(&t.port)(r.URL.Query().Get("port")) != nil:
		return t, errors.New("host and port are needed, or dns")
	}
	return t, nil
}
