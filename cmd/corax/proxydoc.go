package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"corax/proxy"
)

// ProxyStatus is what status says of proxy mode, while it is on here.
type ProxyStatus struct {
	Front     bool            `json:"front"`     // requests for nodes come in here
	Edge      bool            `json:"edge"`      // streams for this domain's nodes are served
	Nodes     int             `json:"nodes"`     // that can be asked for
	Streams   int             `json:"streams"`   // open now
	Listeners []ProxyListener `json:"listeners"` // of a front
}

// ProxyListener is where a front listens.
type ProxyListener struct {
	Front   string `json:"front"`   // tls, http or connect
	Address string `json:"address"` // IP:port, or a path
	Error   string `json:"error"`   // why it does not listen; empty: it does
}

// ProxyStreams are the streams that are open on an agent: GET /v1/proxy and `corax
// proxy -o json`. Its JSON keys are stable.
type ProxyStreams struct {
	Node    string        `json:"node"`
	Streams []ProxyStream `json:"streams"` // the oldest first
}

// ProxyStream is one open stream.
type ProxyStream struct {
	ID        uint64         `json:"id"`
	Side      string         `json:"side"`  // front or edge
	Front     string         `json:"front"` // tls, http or connect; empty at the edge
	Node      string         `json:"node"`
	Port      uint16         `json:"port"`
	Caller    netip.AddrPort `json:"caller"`
	User      string         `json:"user"` // who was authenticated; empty: nobody
	Path      string         `json:"path"` // of the request, where TLS ends here
	Via       string         `json:"via"`  // overlay address that was asked; empty: dialled plainly
	Started   time.Time      `json:"started"`
	UpBytes   uint64         `json:"upBytes"` // to the node
	DownBytes uint64         `json:"downBytes"`
}

// complete makes every list non-nil, so that readers find [], not null.
func (s ProxyStreams) complete() ProxyStreams {
	s.Streams = orEmpty(s.Streams)
	return s
}

// streams are the streams that are open now.
func (a *agent) streams() ProxyStreams {
	out := ProxyStreams{Node: a.cfg.NodeName}
	for _, s := range a.proxy.live.List() {
		out.Streams = append(out.Streams, streamOf(s))
	}
	return out
}

func streamOf(s proxy.StreamInfo) ProxyStream {
	return ProxyStream{
		ID: s.ID, Side: string(s.Side), Front: s.Front, Node: s.Target.Node, Port: s.Target.Port, Caller: s.Caller,
		User: s.User, Path: s.Path, Via: s.Via, Started: s.Started, UpBytes: s.Up, DownBytes: s.Down,
	}
}

// proxyStatus is what status says of proxy mode; nil while it is off.
func (a *agent) proxyStatus(v *view) *ProxyStatus {
	if !v.proxy.Front && !v.proxy.Edge {
		return nil
	}
	s := &ProxyStatus{
		Front: v.proxy.Front, Edge: v.proxy.Edge, Nodes: len(v.proxy.Nodes), Streams: a.proxy.live.Len(),
		Listeners: []ProxyListener{},
	}
	for _, l := range a.proxy.front.Listeners() {
		pl := ProxyListener{Front: l.Front, Address: l.Addr}
		if l.Err != nil {
			pl.Error = l.Err.Error()
		}
		s.Listeners = append(s.Listeners, pl)
	}
	return s
}

// proxyText is proxy mode in one line.
func proxyText(p ProxyStatus) string {
	var roles []string
	if p.Front {
		roles = append(roles, "a front for "+counted(p.Nodes, "node"))
	}
	if p.Edge {
		roles = append(roles, "an edge for this domain")
	}
	return strings.Join(roles, " and ") + ", " + counted(p.Streams, "stream")
}

// counted says how many there are of something.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
