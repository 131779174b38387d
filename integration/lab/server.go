//go:build linux

package lab

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// A Server answers what a host's clients ask, on one port of both families:
// UDP datagrams come back as they are, and over TCP the first byte says what
// follows.
const (
	askEcho     = 'e' // every byte comes back
	askTransfer = 't' // see Host.Transfer
	askName     = 'n' // the server answers with the client's address and closes
)

// udpName asks for the sender's address instead of an echo.
const udpName = "corax-lab: who am I?"

// Server is a test server on a host.
type Server struct {
	Addr netip.AddrPort // the first address it was asked to listen on

	tcp []*net.TCPListener
	udp []*net.UDPConn
	wg  sync.WaitGroup

	mu    sync.Mutex
	conns map[*net.TCPConn]struct{}
	seen  map[netip.Addr]int
	shut  bool
}

// Serve starts a server on port of each address; without addresses on all of
// the host. It ends with the lab, if Close was not called before. One address
// each makes UDP answers come from the address that was asked.
func (h *Host) Serve(port uint16, addrs ...netip.Addr) (*Server, error) {
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.IPv6Unspecified()}
	}
	s := &Server{
		Addr:  netip.AddrPortFrom(addrs[0], port),
		conns: make(map[*net.TCPConn]struct{}),
		seen:  make(map[netip.Addr]int),
	}
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		at := netip.AddrPortFrom(a, port)
		t, err := h.ListenTCP(at)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.tcp = append(s.tcp, t)
		u, err := h.ListenUDP(at)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.udp = append(s.udp, u)
	}
	for _, t := range s.tcp {
		s.wg.Go(func() { s.accept(t) })
	}
	for _, u := range s.udp {
		s.wg.Go(func() { s.echoUDP(u) })
	}
	h.keep(s)
	return s, nil
}

// Seen returns every source address that sent something, sorted.
func (s *Server) Seen() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []netip.Addr
	for a := range s.seen {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// Close ends the server and its connections and waits for both.
func (s *Server) Close() error {
	s.mu.Lock()
	s.shut = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	for _, t := range s.tcp {
		_ = t.Close()
	}
	for _, u := range s.udp {
		_ = u.Close()
	}
	s.wg.Wait()
	return nil
}

func (s *Server) note(from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[from.Addr().Unmap()]++
}

func (s *Server) accept(ln *net.TCPListener) {
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.shut {
			s.mu.Unlock()
			_ = c.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() { s.serveTCP(c) })
	}
}

func (s *Server) serveTCP(c *net.TCPConn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	s.note(from)
	var ask [1]byte
	if _, err := io.ReadFull(c, ask[:]); err != nil {
		return
	}
	switch ask[0] {
	case askEcho:
		_, _ = io.Copy(c, c)
	case askTransfer:
		_ = serveTransfer(c)
	case askName:
		_, _ = fmt.Fprint(c, from.Addr().Unmap())
	}
}

func (s *Server) echoUDP(u *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		s.note(from)
		answer := buf[:n]
		if string(answer) == udpName {
			answer = []byte(from.Addr().Unmap().String())
		}
		_, _ = u.WriteToUDPAddrPort(answer, from)
	}
}

// serveTransfer receives size bytes, answers with their SHA-256, and sends as
// many bytes of its own and their SHA-256.
func serveTransfer(c io.ReadWriter) error {
	var size [8]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint64(size[:]))
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, n); err != nil {
		return err
	}
	if _, err := c.Write(sum.Sum(nil)); err != nil {
		return err
	}
	ours, err := sendRandom(c, n)
	if err != nil {
		return err
	}
	_, err = c.Write(ours)
	return err
}

// sendRandom writes n random bytes and returns their SHA-256.
func sendRandom(w io.Writer, n int64) ([]byte, error) {
	var seed [32]byte
	binary.NativeEndian.PutUint64(seed[:], rand.Uint64())
	sum := sha256.New()
	src := io.TeeReader(io.LimitReader(rand.NewChaCha8(seed), n), sum)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, src, make([]byte, 64<<10))
	return sum.Sum(nil), err
}
