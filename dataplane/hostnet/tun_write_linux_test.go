package hostnet

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

// train is n datagrams of one flow that can be joined.
func train(n int) []dataplane.Packet {
	var out []dataplane.Packet
	for i := range n {
		p := udp4(far4, near4, make([]byte, 100))
		id := uint16(i)
		p[4], p[5] = byte(id>>8), byte(id)
		p[10], p[11] = 0, 0
		c := naiveChecksum(p[:20])
		p[10], p[11] = byte(c>>8), byte(c)
		out = append(out, dataplane.Packet{Data: p})
	}
	return out
}

// TestTUNRefusedGSO: a kernel that refuses super-packets gets plain ones.
func TestTUNRefusedGSO(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, tunDiscard)
	tun.writer.coalesce.UDP = true
	plain := 0
	tun.writer.writev = func(_ uintptr, iov []unix.Iovec) unix.Errno {
		if len(iov) > 2 {
			return unix.EINVAL
		}
		plain++
		return 0
	}
	for range tunGSOFailures {
		if !tun.writer.coalesce.UDP {
			t.Fatal("switched off too early")
		}
		tun.Send(train(4))
	}
	if tun.writer.coalesce.UDP {
		t.Error("still on after repeated refusals")
	}
	if !tun.writer.coalesce.TCP {
		t.Error("TCP was switched off, too")
	}
	tun.Send(train(4))
	if plain != 4*(tunGSOFailures+1) {
		t.Errorf("%d packets written, want %d", plain, 4*(tunGSOFailures+1))
	}
	if n := counter(tun, "tun_gso_fallback_total", ""); n != tunGSOFailures {
		t.Errorf("%d fallbacks, want %d", n, tunGSOFailures)
	}
	if n := counter(tun, "tun_write_packets_total", ""); n != uint64(plain) {
		t.Errorf("counted %d packets, wrote %d", n, plain)
	}
}

// TestTUNRefusedOnce: one bad packet does not cost the offload.
func TestTUNRefusedOnce(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, tunDiscard)
	tun.writer.coalesce.UDP = true
	calls := 0
	tun.writer.writev = func(_ uintptr, iov []unix.Iovec) unix.Errno {
		calls++
		if len(iov) > 2 && calls%2 == 1 {
			return unix.EINVAL
		}
		return 0
	}
	for range 4 * tunGSOFailures {
		tun.Send(train(2))
		tun.Send(train(2))
	}
	if !tun.writer.coalesce.UDP {
		t.Error("switched off although super-packets were taken in between")
	}
}

func TestTUNDropReasons(t *testing.T) {
	for _, row := range []struct {
		errno  unix.Errno
		reason string
	}{
		{unix.EAGAIN, "queue_full"},
		{unix.ENOBUFS, "queue_full"},
		{unix.ENOMEM, "queue_full"},
		{unix.EIO, "down"},
		{unix.EBADFD, "write_failed"},
	} {
		t.Run(row.errno.Error(), func(t *testing.T) {
			tunNamespace(t)
			tun := mustOpen(t, tunDiscard)
			tun.writer.writev = func(uintptr, []unix.Iovec) unix.Errno { return row.errno }
			tun.Send(train(3))
			if n := counter(tun, "tun_drop_total", row.reason); n != 3 {
				t.Errorf("%d drops for %s, want 3", n, row.reason)
			}
			tun.writer.writev = func(uintptr, []unix.Iovec) unix.Errno { return 0 }
			tun.Send(train(3))
			if n := counter(tun, "tun_write_packets_total", ""); n != 3 {
				t.Errorf("%d packets written afterwards, want 3", n)
			}
		})
	}
}

// TestTUNBadPackets goes to the real kernel.
func TestTUNBadPackets(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, tunDiscard)
	tun.Send([]dataplane.Packet{{}, {Data: []byte{0x15}}, {Data: make([]byte, 100)}, {Data: make([]byte, 70000)}})
	if n := counter(tun, "tun_drop_total", "refused"); n != 4 {
		t.Errorf("%d refused, want 4: %v", n, tun.Counters())
	}
}

func TestTUNAllocs(t *testing.T) {
	tunNamespace(t)
	got := 0
	tun := mustOpen(t, dataplane.SenderFunc(func(b []dataplane.Packet) { got += len(b) }))
	addressTUN(t, tun)
	batch := train(64)
	tun.Send(batch)
	if n := testing.AllocsPerRun(50, func() { tun.Send(batch) }); n != 0 {
		t.Errorf("Send: %v allocations a batch", n)
	}
	noDrops(t, tun)

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: far4.As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000); err != nil {
		t.Skipf("kernel without UDP_SEGMENT: %v", err)
	}
	payload := make([]byte, 20000)
	read := func() {
		if _, err := unix.Write(fd, payload); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := tun.conn.Read(tun.reader.ready); err != nil {
				t.Error(err)
				return
			}
			if tun.reader.errno == 0 {
				tun.take(tun.reader.slab[tun.reader.off : tun.reader.off+tun.reader.n])
			}
		}
		tun.flush()
	}
	if n := testing.AllocsPerRun(50, read); n != 0 {
		t.Errorf("read: %v allocations a super-packet", n)
	}
	if got < 51*20 {
		t.Errorf("%d packets read, want %d at least", got, 51*20)
	}
}

// TestTUNWholeBatches: super-packets are handed over in batches that leave in full
// super-datagrams, and their rests with what is read next.
func TestTUNWholeBatches(t *testing.T) {
	tunNamespace(t)
	var sizes []int
	tun := mustOpen(t, dataplane.SenderFunc(func(b []dataplane.Packet) { sizes = append(sizes, len(b)) }))
	const size = 1332 // with the headers of IPv4 and UDP 1360
	h := offload.Header{Flags: offload.FlagNeedsChecksum, GSOType: offload.GSOUDP, GSOSize: size, ChecksumStart: 20, ChecksumOffset: 6}
	for range 4 {
		b := make([]byte, offload.HeaderLen)
		h.Put(b)
		tun.take(append(b, udp4(near4, far4, make([]byte, 49*size))...))
	}
	tun.flush()
	if want := []int{92, 92, 4*49 - 2*92}; !slices.Equal(sizes, want) {
		t.Errorf("batches of %v, want %v", sizes, want)
	}
}

// TestTUNTinySegments: one read that makes far more packets than a batch holds.
func TestTUNTinySegments(t *testing.T) {
	tunNamespace(t)
	var sizes []int
	next := byte(0)
	tun := mustOpen(t, dataplane.SenderFunc(func(b []dataplane.Packet) {
		sizes = append(sizes, len(b))
		for _, p := range b {
			if p.Data[28] != next {
				t.Fatalf("packet begins with %d, want %d", p.Data[28], next)
			}
			next++
		}
	}))
	payload := make([]byte, 300)
	for i := range payload {
		payload[i] = byte(i)
	}
	h := offload.Header{Flags: offload.FlagNeedsChecksum, GSOType: offload.GSOUDP, GSOSize: 1, ChecksumStart: 20, ChecksumOffset: 6}
	b := make([]byte, offload.HeaderLen)
	h.Put(b)
	tun.take(append(b, udp4(near4, far4, payload)...))
	tun.flush()
	if len(sizes) != 3 || sizes[0] != tunBatch || sizes[1] != tunBatch || sizes[2] != 300-2*tunBatch {
		t.Fatalf("batches of %v", sizes)
	}
}

func TestTUNMalformedRead(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, dataplane.SenderFunc(func(b []dataplane.Packet) { t.Errorf("%d packets", len(b)) }))
	tun.take(make([]byte, 3))
	tun.take(make([]byte, offload.HeaderLen))
	bad := make([]byte, offload.HeaderLen)
	offload.Header{Flags: offload.FlagNeedsChecksum, GSOType: offload.GSOUDP, ChecksumStart: 20, ChecksumOffset: 6}.Put(bad)
	tun.take(append(bad, udp4(near4, far4, make([]byte, 9))...))
	bad[1] = 3
	tun.take(append(bad, udp4(near4, far4, make([]byte, 9))...))
	tun.flush()
	if counter(tun, "tun_drop_total", "malformed") != 3 || counter(tun, "tun_drop_total", "unsupported_gso") != 1 {
		t.Error(tun.Counters())
	}
}
