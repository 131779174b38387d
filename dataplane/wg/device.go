package wg

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"

	"corax/dataplane"
	"corax/dataplane/key"
)

var _ dataplane.Sender = (*Device)(nil)

// Config says what device [New] makes. PrivateKey, MTU and Receive are required.
type Config struct {
	// Log takes the messages; nil discards them. None holds a key.
	Log *slog.Logger
	// Name is the interface name under which the user API shows the device,
	// for example corax0. Required with UAPI.
	Name string
	// PrivateKey is this node's key.
	PrivateKey key.Private
	// Port is the UDP port of both families; zero means any.
	Port uint16
	// MTU is the inner MTU in bytes.
	MTU int
	// UAPI opens the Unix socket that stock `wg` talks to. That is best
	// effort: one log line when the socket cannot be had.
	UAPI bool
	// Receive takes the decrypted packets, several goroutines at once.
	Receive dataplane.Sender
	// Other takes the STUN messages, relayed ones too. It is called in the
	// receive loops and by Inject, several at once, and must not block. Nil
	// counts and drops them.
	Other func(Datagram)
	// Wanted is told of a peer that there is a packet for, or that a handshake
	// was started with, at most once a second. What agents tell each other, over
	// UDP or ICMP between overlay addresses, does not count. It is called where
	// packets pass, with locks held: it must neither block nor call the Device.
	// Nil means that nobody wants to know.
	Wanted func(key.Public)
	// Proven is told that a packet of a peer authenticated which came another
	// way than the peer's pinned path: at most once a second and peer, of yet
	// another way than told last after 100 ms. As
	// Wanted it must neither block nor call the Device.
	Proven func(key.Public, Path)
	// Bounds limits what the device holds at once.
	Bounds Bounds

	uapiDir string // for tests; empty means /var/run/wireguard
}

const minMTU = 576 // RFC 791: every host takes this

func (c *Config) check() error {
	switch {
	case c.PrivateKey.IsZero():
		return errors.New("wg: no private key")
	case c.Receive == nil:
		return errors.New("wg: nothing takes the packets")
	case c.MTU < minMTU || c.MTU > device.MaxContentSize:
		return fmt.Errorf("wg: MTU %d is not between %d and %d", c.MTU, minMTU, device.MaxContentSize)
	case c.UAPI && (c.Name == "" || c.Name == "." || filepath.Base(c.Name) != c.Name):
		return fmt.Errorf("wg: bad interface name %q", c.Name)
	}
	return c.Bounds.check()
}

// Device is one WireGuard device. All methods are safe for concurrent use.
type Device struct {
	log   *slog.Logger
	cfg   Config
	self  key.Public
	table *table
	drops *drops
	bind  *bind
	link  *link

	dev atomic.Pointer[device.Device] // nil unless Run is at work

	statusMu sync.Mutex // guards peer.seen and stats
	stats    statsWriter

	mu    sync.Mutex // guards what follows; held while the device changes
	ran   bool       // Run or Close was called
	peers []dataplane.Peer
	dirty bool         // the device may differ from peers
	greet []key.Public // to shake hands with when Run starts
}

// New opens the sockets, so that a taken port is an error here. It starts
// nothing: call Run, or Close.
func New(cfg Config) (*Device, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.uapiDir == "" {
		cfg.uapiDir = uapiDir
	}
	d := &Device{
		log: log.With("component", "wg"), cfg: cfg, self: cfg.PrivateKey.Public(),
		table: newTable(), drops: new(drops),
	}
	d.bind = newBind(d.log, d.table, d.drops, &cfg)
	d.link = newLink(cfg.Name, cfg.MTU, cfg.Receive, d.bind)
	if err := d.bind.listen(cfg.Port); err != nil {
		return nil, fmt.Errorf("wg: %w", err)
	}
	return d, nil
}

// Run works until ctx is done; then it closes everything and returns nil. It
// may be called once.
func (d *Device) Run(ctx context.Context) error {
	dev, err := d.start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	if d.cfg.UAPI {
		u, err := listenUAPI(d.cfg.uapiDir, d.cfg.Name)
		if err != nil {
			d.log.Info("no user API socket, so wg show does not work", "err", err)
		} else {
			wg.Go(func() { u.serve(ctx, dev.IpcHandle) })
		}
	}
	wg.Go(func() { d.bind.resendLoop(ctx) })
	d.bind.extras.run()
	select {
	case <-ctx.Done():
	case <-dev.Wait():
		err = errors.New("wg: wireguard-go closed the device")
	}
	cancel()
	wg.Wait() // first: a stalled request would hold up Close
	d.bind.extras.stop()
	d.stop(dev)
	return err
}

// start makes the device, with the peers that are known by now, and brings it up.
func (d *Device) start() (*device.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ran {
		return nil, errors.New("wg: Run called on a device that ran or was closed")
	}
	d.ran = true
	dev := device.NewDevice(d.link, d.bind, newLogger(d.log, d.drops, d.bind.in))
	raw := d.cfg.PrivateKey.Bytes()
	err := dev.IpcSet("private_key=" + hex.EncodeToString(raw[:]) + "\n")
	if err == nil {
		err = dev.Up()
	}
	if err != nil {
		d.stop(dev)
		return nil, fmt.Errorf("wg: bring up the device: %w", err)
	}
	d.dev.Store(dev)
	d.link.open.Store(true)
	if err := d.applyLocked(dev, nil, d.peers); err != nil {
		d.log.Warn("peers not applied", "err", err)
	}
	for _, k := range d.greet {
		d.handshake(dev, k)
	}
	d.greet = nil
	return dev, nil
}

func (d *Device) stop(dev *device.Device) {
	dev.Close()
	if err := d.bind.shut(); err != nil {
		d.log.Debug("close the tunnel port", "err", err)
	}
	d.dev.Store(nil)
}

// Close frees the port of a device whose Run was never called; otherwise it
// does nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ran {
		return nil
	}
	d.ran = true
	return d.bind.shut()
}

// Send encrypts IP packets and sends them to the peers whose allowed IPs hold
// their destinations. It blocks while wireguard-go is full, for milliseconds.
// Before Run and after it the packets are dropped.
func (d *Device) Send(batch []dataplane.Packet) { d.link.Send(batch) }

// SetMTU changes the inner MTU in bytes, within the bounds of Config.MTU.
func (d *Device) SetMTU(mtu int) {
	d.link.setMTU(min(max(mtu, minMTU), device.MaxContentSize))
}

// SetAllow makes t the addresses that packets are taken from, and sent to: of
// others everything is dropped and counted, before anything looks at it. Nil
// allows all. What comes over a stream or a relay is not looked at: who serves
// those does.
func (d *Device) SetAllow(t *dataplane.AllowTable) { d.bind.allow.Store(t) }

// Port returns the UDP port.
func (d *Device) Port() uint16 { return uint16(d.bind.port.Load()) }

// Counters returns the drops by reason and the counters of the sockets. The
// latter start anew when the port is opened again.
func (d *Device) Counters() []dataplane.Counter { return d.bind.counters() }

// Handshake makes wireguard-go start a handshake with a peer now, and reports
// whether it did: it does not when it started or answered one in the last five
// seconds. Without a path the message waits as long for one. Before Run it is
// noted and done when Run starts. Unknown peers are ignored.
func (d *Device) Handshake(k key.Public) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev := d.dev.Load(); dev != nil {
		return d.handshake(dev, k)
	}
	if !d.ran {
		d.greet = append(d.greet, k)
	}
	return false
}

func (d *Device) handshake(dev *device.Device, k key.Public) bool {
	p, known := dev.LookupPeer(device.NoisePublicKey(k)), d.table.get(k)
	if p == nil || known == nil {
		return false
	}
	before := known.initiations.Load()
	if err := p.SendHandshakeInitiation(false); err != nil {
		d.log.Debug("start a handshake", "peer", k, "err", err)
	}
	return known.initiations.Load() != before
}
