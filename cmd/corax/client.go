package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
)

// maxDocument bounds what a command reads of the agent's status, in bytes.
const maxDocument = 64 << 20

// client asks an agent over its unix socket.
type client struct {
	socket string
	http   http.Client
}

func newClient(socket string) *client {
	c := &client{socket: socket}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Close drops idle connections.
func (c *client) Close() { c.http.CloseIdleConnections() }

// socketFlag adds --socket, which every client command takes.
func socketFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("socket", defaultSocket, "`FILE` of the agent's socket")
}

// Status asks for the agent's status.
func (c *client) Status(ctx context.Context) (s Status, err error) {
	err = c.document(ctx, "status", nil, &s)
	return s, err
}

// Paths asks for the ways to a peer.
func (c *client) Paths(ctx context.Context, peer string) (p Paths, err error) {
	err = c.document(ctx, "paths", url.Values{"peer": {peer}}, &p)
	return p, err
}

// Netcheck has the agent look at its network, which takes a while.
func (c *client) Netcheck(ctx context.Context) (n Netcheck, err error) {
	err = c.document(ctx, "netcheck", nil, &n)
	return n, err
}

// Streams asks for the streams of proxy mode.
func (c *client) Streams(ctx context.Context) (s ProxyStreams, err error) {
	err = c.document(ctx, "proxy", nil, &s)
	return s, err
}

// Probe has the agent dial a port of a node as a front does.
func (c *client) Probe(ctx context.Context, node string, port uint16) (p ProxyProbe, err error) {
	err = c.document(ctx, "proxy/probe", url.Values{"node": {node}, "port": {strconv.Itoa(int(port))}}, &p)
	return p, err
}

// document asks for one JSON document.
func (c *client) document(ctx context.Context, name string, query url.Values, into any) error {
	body, err := c.get(ctx, "/v1/"+name, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxDocument)).Decode(into); err != nil {
		return &exitError{exitNoAgent, fmt.Errorf("read %s from %s: %w", name, c.socket, err), ""}
	}
	return nil
}

// Ping asks for n echo requests (0: until ctx ends) and calls reply with each
// answer, until reply returns false.
func (c *client) Ping(ctx context.Context, target string, n int, reply func(PingReply) bool) error {
	body, err := c.get(ctx, "/v1/ping", url.Values{"target": {target}, "count": {strconv.Itoa(n)}})
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil // interrupted before the first answer
		}
		return err
	}
	defer body.Close()
	for dec := json.NewDecoder(body); ; {
		var line struct {
			PingReply
			apiError
		}
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("the agent stopped answering: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		case !reply(line.PingReply):
			return nil
		}
	}
}

// get returns the body of a good answer.
func (c *client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	return c.ask(ctx, http.MethodGet, path, query)
}

// ask returns the body of a good answer to a request.
func (c *client) ask(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "corax", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAgent(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var e apiError
	if json.NewDecoder(io.LimitReader(resp.Body, maxHeader)).Decode(&e) != nil || e.Error == "" {
		e.Error = resp.Status
	}
	if resp.StatusCode == http.StatusForbidden {
		return nil, &exitError{exitNoAgent, errors.New(e.Error), "try: sudo"}
	}
	return nil, errors.New(e.Error)
}

// noAgent explains why the agent could not be asked.
func (c *client) noAgent(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which nobody typed
	}
	e := &exitError{code: exitNoAgent, err: fmt.Errorf("ask the agent: %w", err)}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.hint = "no agent runs on this node, or its socket is elsewhere: --socket FILE"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.hint = "the agent that made this socket has died"
	case errors.Is(err, fs.ErrPermission):
		e.hint = "only root and the user of the agent may ask it; try: sudo"
	}
	return e
}
