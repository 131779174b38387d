package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Media types of the local API.
const (
	typeJSON  = "application/json"
	typeLines = "application/x-ndjson"
	typeText  = "text/plain; charset=utf-8"
)

// apiError is the JSON form of an error, alone or as the last line of a stream.
type apiError struct {
	Error string `json:"error"`
}

// api returns the handler of the unix socket.
func (l *local) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", l.serveStatus)
	mux.HandleFunc("GET /v1/ping", l.servePing)
	mux.HandleFunc("GET /v1/paths", l.servePaths)
	mux.HandleFunc("GET /v1/netcheck", l.serveNetcheck)
	mux.HandleFunc("GET /v1/forwards", l.serveForwards)
	mux.HandleFunc("POST /v1/forwards", l.serveForwards)
	mux.HandleFunc("DELETE /v1/forwards", l.serveForwards)
	mux.HandleFunc("GET /v1/connect", l.serveConnect)
	mux.HandleFunc("GET /v1/proxy", l.serveStreams)
	mux.HandleFunc("GET /v1/proxy/probe", l.serveProbe)
	return ownerOnly(mux)
}

func (l *local) serveStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, l.status())
}

// maxEchoes bounds how many echo requests one call may ask for.
const maxEchoes = 1_000_000

// servePing streams one line per echo request, each written at once.
func (l *local) servePing(w http.ResponseWriter, r *http.Request) {
	target, countText := r.URL.Query().Get("target"), r.URL.Query().Get("count")
	count := 0
	if countText != "" {
		n, err := strconv.Atoi(countText)
		if err != nil || n < 0 || n > maxEchoes {
			writeJSON(w, http.StatusBadRequest, apiError{"count is not a number from 0 to 1000000"})
			return
		}
		count = n
	}
	if target == "" {
		writeJSON(w, http.StatusBadRequest, apiError{"target is missing"})
		return
	}
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	started := false
	err := l.agent.Ping(r.Context(), target, count, func(p PingReply) {
		if !started {
			w.Header().Set("Content-Type", typeLines)
			started = true
		}
		p.Path.Via = orEmpty(p.Path.Via)
		// A reader that does not read loses its connection, which ends the ping.
		_ = rc.SetWriteDeadline(time.Now().Add(maxAnswer))
		_ = enc.Encode(p)
		_ = rc.Flush()
	})
	switch {
	case r.Context().Err() != nil: // nobody listens any more
	case err != nil && started:
		_ = enc.Encode(apiError{err.Error()})
	case err != nil:
		writeError(w, err)
	}
}

func (l *local) servePaths(w http.ResponseWriter, r *http.Request) {
	peer := r.URL.Query().Get("peer")
	switch {
	case l.agent.Paths == nil:
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	case peer == "":
		writeJSON(w, http.StatusBadRequest, apiError{"peer is missing"})
		return
	}
	p, err := l.agent.Paths(peer)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, p.complete())
}

func (l *local) serveNetcheck(w http.ResponseWriter, r *http.Request) {
	if l.agent.Netcheck == nil {
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxNetcheck)
	defer cancel()
	n, err := l.agent.Netcheck(ctx)
	switch {
	case r.Context().Err() != nil: // nobody listens any more
	case err != nil:
		writeError(w, err)
	default:
		writeJSON(w, http.StatusOK, n.complete())
	}
}

func (l *local) serveStreams(w http.ResponseWriter, _ *http.Request) {
	if l.agent.Streams == nil {
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	}
	writeJSON(w, http.StatusOK, l.agent.Streams().complete())
}

func (l *local) serveProbe(w http.ResponseWriter, r *http.Request) {
	if l.agent.Probe == nil {
		writeJSON(w, http.StatusNotImplemented, apiError{"not available in this agent"})
		return
	}
	port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16)
	if err != nil || port == 0 || r.URL.Query().Get("node") == "" {
		writeJSON(w, http.StatusBadRequest, apiError{"node or port is missing or wrong"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxProbe)
	defer cancel()
	writeJSON(w, http.StatusOK, l.agent.Probe(ctx, r.URL.Query().Get("node"), uint16(port)).complete())
}

// health returns the handler of the health listener.
func (l *local) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready, why := l.agent.Ready(); !ready {
			writeText(w, http.StatusServiceUnavailable, "not ready", why...)
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	return mux
}

// writeError answers with an error of the agent's.
func writeError(w http.ResponseWriter, err error) {
	code := http.StatusBadGateway
	if errors.Is(err, errNoTarget) {
		code = http.StatusNotFound
	}
	writeJSON(w, code, apiError{err.Error()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func writeText(w http.ResponseWriter, code int, first string, rest ...string) {
	w.Header().Set("Content-Type", typeText)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(strings.Join(append([]string{first}, rest...), "\n") + "\n"))
}
