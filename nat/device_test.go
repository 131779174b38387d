package nat

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/relay"
	"corax/nat/stream"
)

// device is the Tunnel of one node. It does what dataplane/wg does, but for the
// cryptography: a datagram is authentic when it arrives.
type device struct {
	n *node

	mu     sync.Mutex
	peers  map[key.Public]*link
	labels map[uint64]relay.Forward
	log    []setPath
	shakes map[key.Public]int
	opened uint32
	extra  []uint32 // sockets that are open
	closed [][]uint32
	sent   []Raw         // by SendRaw
	dry    bool          // streams take nothing: they are none
	hellos chan datagram // what came for the hello port
	gone   chan struct{}
	once   sync.Once
}

var _ Tunnel = (*device)(nil)

// link is what the device knows of a peer.
type link struct {
	path           Path
	pinned         bool
	heard          time.Time
	sent, received uint64
	wanted, told   time.Time
	kept           time.Time // when an initiation was made that waits for a path
	source         Path      // where a packet came from that did not come over path
	from           Path      // where it last proved to send from, while path is pinned elsewhere
	spoke          time.Time // when something was last sent
	packets        int       // of the test's own traffic that came
}

type setPath struct {
	at   time.Time
	key  key.Public
	path Path
	pin  bool
}

type datagram struct {
	from key.Public
	body []byte
}

func newDevice(n *node) *device {
	return &device{
		n: n, peers: make(map[key.Public]*link), shakes: make(map[key.Public]int),
		hellos: make(chan datagram, 1024), gone: make(chan struct{}),
	}
}

// setPeers makes the peers those of the plan.
func (d *device) setPeers(p Plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := make(map[key.Public]*link)
	for _, x := range p.Peers {
		next[x.Key] = d.peers[x.Key]
		if next[x.Key] == nil {
			next[x.Key] = new(link)
		}
	}
	d.peers = next
}

func (d *device) SetPath(k key.Public, p Path, pin bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, setPath{time.Now(), k, p, pin})
	x := d.peers[k]
	if x == nil {
		return
	}
	if x.path != p {
		x.heard = time.Time{}
	}
	x.path, x.pinned, x.from = p, pin, Path{}
	if p != (Path{}) && time.Since(x.kept) < 5*time.Second {
		x.kept = time.Time{}
		d.write(p, 0, frame{from: d.n.key, to: k, kind: initiation})
	}
}

func (d *device) SetLabels(labels map[uint64]relay.Forward) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.labels = labels
}

func (d *device) SendRaw(batch []Raw) []SendError {
	d.mu.Lock()
	defer d.mu.Unlock()
	var failed []SendError
	for i, r := range batch {
		d.sent = append(d.sent, r)
		if r.DF && d.n.linkMTU != 0 && len(r.Data) > d.n.linkMTU {
			failed = append(failed, SendError{i, syscall.EMSGSIZE})
			continue
		}
		if !d.write(r.Path, r.TTL, frame{stun: slices.Clone(r.Data)}) {
			failed = append(failed, SendError{i, errors.New("no path")})
		}
	}
	return failed
}

func (d *device) OpenSockets(n int, _ bool) ([]uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n.noSockets {
		return nil, errors.New("too many open files")
	}
	var out []uint32
	for range n {
		d.opened++
		out = append(out, d.opened)
	}
	d.extra = append(d.extra, out...)
	return out, nil
}

func (d *device) CloseSockets(keep ...uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = append(d.closed, keep)
	d.extra = slices.DeleteFunc(d.extra, func(s uint32) bool { return !slices.Contains(keep, s) })
}

func (d *device) Activity(k key.Public) (Activity, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.peers[k]
	if x == nil {
		return Activity{}, false
	}
	return Activity{Sent: x.sent, Received: x.received, Path: x.path, Heard: x.heard}, true
}

func (d *device) Handshake(k key.Public) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shakes[k]++
	x := d.peers[k]
	if x == nil {
		return false
	}
	if !d.write(x.path, 0, frame{from: d.n.key, to: k, kind: initiation}) {
		x.kept = time.Now()
	}
	return true
}

func (d *device) Inject(k key.Public, c *stream.Conn, datagrams [][]byte) {
	for _, b := range datagrams {
		if f, ok := decode(b); ok {
			d.receive(Path{Stream: c}, k, f)
		}
	}
}

func (d *device) EndStream(c *stream.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.peers {
		if x.path.Stream == c {
			x.path = Path{}
		}
	}
}

// write sends a frame over a path. It reports whether there is one.
func (d *device) write(p Path, ttl int, f frame) bool {
	if !p.Via.IsZero() {
		hub := d.peers[p.Via]
		if hub == nil || !hub.path.own() {
			return false
		}
		f.label = p.Label
		p = hub.path
	}
	if p.Stream != nil && !d.dry {
		return p.Stream.Send([][]byte{f.encode()}) == 1
	}
	if !p.To.IsValid() {
		return false
	}
	d.n.w.send(d.n, p.Socket, p.To, ttl, f)
	return true
}

// transmit sends a packet to a peer; chatter is what agents tell each other.
func (d *device) transmit(k key.Public, body []byte, chatter bool) {
	d.mu.Lock()
	x := d.peers[k]
	if x == nil {
		d.mu.Unlock()
		return
	}
	tell := !chatter && time.Since(x.wanted) >= time.Second
	if tell {
		x.wanted = time.Now()
	}
	source, proven := d.prove(x)
	x.spoke = time.Now()
	if d.write(x.path, 0, frame{from: d.n.key, to: k, kind: data, body: body}) {
		x.sent++
	} else {
		x.kept = time.Now()
	}
	d.mu.Unlock()
	if tell {
		d.n.agent.Wanted(k)
	}
	if proven {
		d.n.agent.Proven(k, source)
	}
}

// receive takes a datagram off the tunnel port, or a stream of the peer origin.
func (d *device) receive(way Path, origin key.Public, f frame) {
	d.mu.Lock()
	from := way
	if f.label != 0 {
		fwd, ok := d.labels[f.label]
		hub := d.peers[fwd.From]
		if !ok || hub == nil || hub.path != way && (hub.from != way || !hub.path.own()) {
			d.mu.Unlock()
			return
		}
		if hub.path == way {
			hub.heard = time.Now()
		}
		if fwd.Out != 0 {
			if to := d.peers[fwd.To]; to != nil && to.path.own() {
				f.label = fwd.Out
				d.write(to.path, 0, f)
			}
			d.mu.Unlock()
			return
		}
		way, origin = Path{Via: fwd.From, Label: f.label}, fwd.To
	}
	if f.stun != nil {
		d.mu.Unlock()
		d.n.agent.Receive(Datagram{
			From: from.To, Socket: from.Socket, Stream: from.Stream, Peer: origin, Via: way.Via, Label: f.label, Data: f.stun,
		})
		return
	}
	proven := d.authentic(way, origin, f)
	d.mu.Unlock()
	if proven {
		d.n.agent.Proven(f.from, way)
	}
}

// authentic takes one of WireGuard's messages. It reports whether the agent must
// hear of the way.
func (d *device) authentic(way Path, origin key.Public, f frame) (proven bool) {
	x := d.peers[f.from]
	if x == nil || f.to != d.n.key || !origin.IsZero() && origin != f.from {
		return false
	}
	if x.path == way {
		x.heard = time.Now()
	} else {
		x.source = way
	}
	switch f.kind {
	case initiation:
		_, proven = d.prove(x)
		d.write(way, 0, frame{from: d.n.key, to: f.from, kind: response})
	case data:
		x.received++
		at := time.Now()
		time.AfterFunc(passiveKeepalive, func() { d.keepalive(f.from, at) })
		if string(f.body) == "ping" {
			x.packets++
			return proven
		}
		select {
		case d.hellos <- datagram{f.from, f.body}:
		default:
		}
	}
	return proven
}

// passiveKeepalive is after how long WireGuard answers data when nobody else does.
const passiveKeepalive = 10 * time.Second

// keepalive answers what came from a peer at a time, unless something was sent
// since.
func (d *device) keepalive(k key.Public, came time.Time) {
	d.mu.Lock()
	x := d.peers[k]
	if x == nil || x.spoke.After(came) {
		d.mu.Unlock()
		return
	}
	x.spoke = time.Now()
	source, proven := d.prove(x)
	d.write(x.path, 0, frame{from: d.n.key, to: k, kind: response})
	d.mu.Unlock()
	if proven {
		d.n.agent.Proven(k, source)
	}
}

// prove moves a path that is not pinned to where the peer was heard; else the
// agent is to hear of that. As in WireGuard this happens when something is sent.
func (d *device) prove(x *link) (source Path, tell bool) {
	source, x.source = x.source, Path{}
	switch {
	case source == (Path{}) || source == x.path:
		return Path{}, false
	case !x.pinned:
		x.path, x.heard = source, time.Now()
		return Path{}, false
	}
	if source.own() {
		x.from = source
	}
	if time.Since(x.told) < time.Second {
		return Path{}, false
	}
	x.told = time.Now()
	return source, true
}

// The device is the hello port too.

type helloConn struct {
	net.PacketConn // the methods that nobody calls
	*device
}

func (c helloConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.gone:
		return 0, nil, net.ErrClosed
	case m := <-c.hellos:
		return copy(b, m.body), &net.UDPAddr{IP: m.from.Overlay().AsSlice(), Port: hello.Port}, nil
	}
}

func (c helloConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if k, ok := c.n.w.named(to.(*net.UDPAddr).AddrPort().Addr()); ok {
		c.transmit(k, slices.Clone(b), true)
	}
	return len(b), nil
}

func (c helloConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}

// paths returns where the agent set the path of a peer since a time.
func (d *device) paths(k key.Public, since time.Time) []Path {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Path
	for _, s := range d.log {
		if s.key == k && !s.at.Before(since) {
			out = append(out, s.path)
		}
	}
	return out
}

// got returns how many packets of a peer came.
func (d *device) got(k key.Public) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.peers[k]; x != nil {
		return x.packets
	}
	return 0
}

// last returns the path of a peer and whether it is pinned.
func (d *device) last(k key.Public) (Path, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.peers[k]; x != nil {
		return x.path, x.pinned
	}
	return Path{}, false
}
