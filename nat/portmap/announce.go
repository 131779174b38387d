package portmap

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// announcePort is where routers multicast that they restarted (RFC 6887 section
// 14.1, RFC 6886 section 3.2.1), to the group 224.0.0.1 of all hosts.
const announcePort = 5350

// announcement is what a router multicast about itself.
type announcement struct {
	from     netip.Addr
	proto    Protocol
	epoch    uint32
	external netip.Addr // NAT-PMP: the router's; zero for PCP
}

func parseAnnouncement(b []byte, from netip.Addr) (announcement, bool) {
	if a, reason := parsePCP(b); reason == dropNot && a.opcode == pcpAnnounce && a.result == pcpSuccess {
		return announcement{from, PCP, a.epoch, netip.Addr{}}, true
	}
	if a, reason := parsePMP(b); reason == dropNot && a.opcode == pmpExternal && a.result == pmpSuccess {
		return announcement{from, NATPMP, a.epoch, a.address}, true
	}
	return announcement{}, false
}

// announced takes an announcement. Anybody on the LAN can forge one, so it never
// does more than bring the next renewal forward, and not closer than pokeGap to
// the last; the renewal's own answer then tells the truth.
func (m *machine) announced(now time.Time, a announcement) {
	if m.have.proto != a.proto || m.have.gateway != a.from {
		return
	}
	moved := a.external.IsValid() && a.external != m.have.external.Addr()
	if !moved && !m.epoch.lost(now, a.proto, a.from, a.epoch) {
		return
	}
	if soon := m.soonest(now); m.renewAt.After(soon) {
		m.renewAt = soon
	}
}

// listen hands announcements of a router that we have a mapping at to its lane.
// Without it a reboot is noticed later, so that it may fail.
func (m *Mapper) listen(ctx context.Context) {
	var conn *net.UDPConn
	err := m.client.open(func() (err error) {
		conn, err = listenAnnouncements()
		return err
	})
	if err != nil {
		m.log.Debug("no announcements of routers", "err", err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, maxUDP)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		src := from.Addr().Unmap()
		if s := m.v4.view.Load(); s.Protocol == None || s.Gateway != src {
			continue
		}
		if a, ok := parseAnnouncement(buf[:n], src); ok {
			select {
			case m.v4.heard <- a:
			default:
			}
		}
	}
}
