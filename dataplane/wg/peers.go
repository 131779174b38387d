package wg

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
	"golang.zx2c4.com/wireguard/device"

	"corax/dataplane"
	"corax/dataplane/key"
)

// SetPeers makes peers the peers. Only what differs from the call before is
// touched: sessions and learned paths of the others live on, and a prefix that
// moves from one peer to another is never without owner. The endpoint of a peer
// counts when it is new or changed, and the peer's path is not pinned; an endpoint
// without address or port does not.
//
// What is wrong with single peers is returned, and the rest applied. Before Run
// the peers are kept for it.
func (d *Device) SetPeers(peers []dataplane.Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := checkPeers(d.self, peers)
	old := d.peers
	d.peers = now
	d.addLocked(old, now)
	if dev := d.dev.Load(); dev != nil {
		from := old
		if d.dirty {
			from = gone(old, now) // write the others whole
		}
		err = errors.Join(err, d.applyLocked(dev, from, now))
	}
	d.removeLocked(old, now)
	d.bind.relays.rebuild(d.table)
	d.link.forget()
	if err != nil {
		return fmt.Errorf("wg: set peers: %w", err)
	}
	return nil
}

// addLocked makes new peers known to the bind, and sets paths.
func (d *Device) addLocked(old, now []dataplane.Peer) {
	was := make(map[key.Public]netip.AddrPort, len(old))
	for _, o := range old {
		was[o.PublicKey] = o.Endpoint
	}
	for _, n := range now {
		p := d.table.add(n.PublicKey)
		if !n.Endpoint.IsValid() || n.Other {
			continue // of the other key of a node the address is that one's
		}
		w := p.path.Load()
		if w == nil || n.Endpoint != was[n.PublicKey] && !w.pinned {
			d.SetPath(n.PublicKey, Path{To: n.Endpoint}, false)
		}
	}
}

// applyLocked changes the device, and then the link's table of owners.
func (d *Device) applyLocked(dev *device.Device, old, now []dataplane.Peer) error {
	d.dirty = false
	request := render(old, now)
	defer clear(request) // pre-shared keys
	if len(request) > 0 {
		if err := dev.IpcSetOperation(bytes.NewReader(request)); err != nil {
			d.dirty = true
			return err
		}
	}
	owners := new(bart.Table[*peer])
	for _, n := range now {
		p := d.table.get(n.PublicKey)
		for _, x := range n.AllowedIPs {
			owners.Insert(x, p)
		}
	}
	d.link.owners.Store(owners)
	return nil
}

// removeLocked makes the bind forget the peers that are gone.
func (d *Device) removeLocked(old, now []dataplane.Peer) {
	for _, o := range gone(old, now) {
		if p := d.table.get(o.PublicKey); p != nil {
			d.table.remove(p)
		}
	}
}

// gone returns the peers of old that now lacks.
func gone(old, now []dataplane.Peer) []dataplane.Peer {
	keep := make(map[key.Public]bool, len(now))
	for _, n := range now {
		keep[n.PublicKey] = true
	}
	var out []dataplane.Peer
	for _, o := range old {
		if !keep[o.PublicKey] {
			out = append(out, o)
		}
	}
	return out
}
