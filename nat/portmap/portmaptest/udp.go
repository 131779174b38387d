package portmaptest

import (
	"encoding/binary"
	"net/netip"
)

// answerUDP answers one packet on port 5351.
func (g *Gateway) answerUDP(req []byte, from netip.AddrPort) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	var resp []byte
	switch {
	case len(req) < 2:
		return nil
	case req[0] == 2 && g.cfg.PCP:
		resp = g.pcpLocked(req, from)
	case req[0] == 0 && g.cfg.NATPMP:
		resp = g.pmpLocked(req, from)
	case g.cfg.NATPMP: // RFC 6886 section 3.5
		g.requests["version"]++
		resp = []byte{0, 0x80 | req[1], 0, 1}
		resp = binary.BigEndian.AppendUint32(resp, g.now())
	default: // RFC 6887 section 9
		g.requests["version"]++
		resp = make([]byte, 24)
		resp[0], resp[1], resp[3] = 2, 0x80|req[1], 1
	}
	if resp == nil || g.fault.Silent {
		return nil
	}
	if g.fault.Instead != nil {
		return g.fault.Instead(req, resp)
	}
	var out [][]byte
	if g.fault.Before != nil {
		out = g.fault.Before(req, resp)
	}
	return append(out, resp)
}

func (g *Gateway) pcpLocked(req []byte, from netip.AddrPort) []byte {
	if len(req) < 24 || len(req)%4 != 0 {
		return nil
	}
	resp := append([]byte(nil), req...)
	resp[1] |= 0x80
	binary.BigEndian.PutUint32(resp[8:], g.now())
	clear(resp[12:24])
	if netip.AddrFrom16([16]byte(req[8:24])).Unmap() != from.Addr().WithZone("") {
		return refusePCP(resp, 12, 0)
	}
	switch req[1] {
	case 0:
		g.requests["announce"]++
		binary.BigEndian.PutUint32(resp[4:], 0)
		return resp[:24]
	case 1:
		g.requests["pcp map"]++
	default:
		return refusePCP(resp, 4, 1800)
	}
	if len(req) < 60 || req[36] != 17 {
		return refusePCP(resp, 3, 1800)
	}
	if g.fault.PCPResult != 0 {
		return refusePCP(resp, g.fault.PCPResult, g.fault.ErrorLifetime)
	}
	internal := netip.AddrPortFrom(from.Addr().WithZone(""), binary.BigEndian.Uint16(req[40:]))
	life := binary.BigEndian.Uint32(req[4:])
	nonce := [12]byte(req[24:36])
	if life == 0 {
		g.deleteLocked(func(m Mapping) bool { return m.Internal == internal && m.Nonce == nonce })
		return resp
	}
	life = g.capLocked(life)
	m, ok := g.grantLocked(Mapping{Protocol: "PCP", Internal: internal, External: binary.BigEndian.Uint16(req[42:]), Nonce: nonce, Lifetime: life})
	if !ok {
		return refusePCP(resp, 2, 30)
	}
	binary.BigEndian.PutUint32(resp[4:], life)
	binary.BigEndian.PutUint16(resp[42:], m.External)
	external := g.cfg.External.As16()
	if internal.Addr().Is6() {
		external = internal.Addr().As16()
	}
	copy(resp[44:], external[:])
	return resp
}

func (g *Gateway) capLocked(life uint32) uint32 {
	if g.fault.Lifetime != 0 {
		return min(life, g.fault.Lifetime)
	}
	return life
}

func refusePCP(resp []byte, code uint8, lasts uint32) []byte {
	resp[3] = code
	binary.BigEndian.PutUint32(resp[4:], lasts)
	return resp
}

func (g *Gateway) pmpLocked(req []byte, from netip.AddrPort) []byte {
	head := func(code uint16) []byte {
		b := []byte{0, 0x80 | req[1], byte(code >> 8), byte(code)}
		return binary.BigEndian.AppendUint32(b, g.now())
	}
	switch {
	case req[1] == 0:
		g.requests["external"]++
		a := g.cfg.External.As4()
		return append(head(0), a[:]...)
	case req[1] != 1 || len(req) < 12:
		return head(5)
	}
	g.requests["pmp map"]++
	if g.fault.PMPResult != 0 {
		return append(head(g.fault.PMPResult), req[4:12]...)
	}
	internal := netip.AddrPortFrom(from.Addr(), binary.BigEndian.Uint16(req[4:]))
	life := binary.BigEndian.Uint32(req[8:])
	resp := append(head(0), req[4:6]...)
	if life == 0 {
		g.deleteLocked(func(m Mapping) bool { return m.Internal == internal })
		return append(resp, 0, 0, 0, 0, 0, 0)
	}
	m, _ := g.grantLocked(Mapping{Protocol: "NAT-PMP", Internal: internal, External: binary.BigEndian.Uint16(req[6:]), Lifetime: g.capLocked(life)})
	resp = binary.BigEndian.AppendUint16(resp, m.External)
	return binary.BigEndian.AppendUint32(resp, m.Lifetime)
}
