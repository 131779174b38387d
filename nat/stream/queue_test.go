package stream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// slowQueue says what queue should do, with a slice.
type slowQueue struct {
	list []slowItem
}

type slowItem struct {
	at   time.Duration
	data []byte
}

func (q *slowQueue) push(now time.Duration, b []byte) (dropped int) {
	q.list = append(q.list, slowItem{now, bytes.Clone(b)})
	for len(q.list) > maxQueued || q.size() > maxQueueBytes {
		q.list = q.list[1:]
		dropped++
	}
	return dropped
}

func (q *slowQueue) size() (n int) {
	for _, i := range q.list {
		n += headerSize + len(i.data)
	}
	return n
}

func (q *slowQueue) take(since time.Duration) (record []byte, taken, dropped int) {
	for len(q.list) > 0 {
		i := q.list[0]
		switch {
		case i.at < since:
			dropped++
		case len(record)+lengthSize+len(i.data) > maxRecord:
			return record, taken, dropped
		default:
			record = append(binary.BigEndian.AppendUint16(record, uint16(len(i.data))), i.data...)
			taken++
		}
		q.list = q.list[1:]
	}
	return record, taken, dropped
}

func TestQueue(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		slow, fast := &slowQueue{}, &queue{store: new(store)}
		now := time.Duration(0)
		for step := range 2000 {
			now += time.Duration(rnd.IntN(3)) * time.Millisecond
			if rnd.IntN(int(2+seed)) > 0 {
				b := make([]byte, 1+rnd.IntN([]int{100, 1500, MaxDatagram}[rnd.IntN(3)]))
				b[0], b[len(b)-1] = byte(step), byte(step>>8)
				if want, got := slow.push(now, b), fast.push(now, b); want != got {
					t.Fatalf("seed %d, step %d: push dropped %d, want %d", seed, step, got, want)
				}
				continue
			}
			since := now - time.Duration(rnd.IntN(60))*time.Millisecond
			want, wantN, wantOld := slow.take(since)
			got, n, old := fast.take(since)
			if !bytes.Equal(want, got) || n != wantN || old != wantOld || fast.count != len(slow.list) || fast.used != slow.size() {
				t.Fatalf("seed %d, step %d: take gave %d bytes, %d datagrams, %d old; want %d, %d, %d", seed, step, len(got), n, old, len(want), wantN, wantOld)
			}
		}
	}
}

// slowSplit says what a splitter should do with all bytes at once.
func slowSplit(b []byte) (list [][]byte, bad bool) {
	for len(b) >= lengthSize {
		n := int(binary.BigEndian.Uint16(b))
		if n > MaxDatagram {
			return list, true
		}
		if len(b) < lengthSize+n {
			break
		}
		if n > 0 {
			list = append(list, bytes.Clone(b[lengthSize:][:n]))
		}
		b = b[lengthSize+n:]
	}
	return list, false
}

// split gives b to a splitter in pieces of the sizes that sizes says.
func split(t testing.TB, b, sizes []byte) (list [][]byte, bad bool) {
	var s splitter
	give := func(batch [][]byte) {
		if len(batch) == 0 || len(batch) > maxBatch {
			t.Errorf("a batch of %d", len(batch))
		}
		for _, d := range batch {
			list = append(list, bytes.Clone(d))
		}
	}
	for i := 0; len(b) > 0; i++ {
		space := s.space()
		if len(space) == 0 || len(s.buf) > maxReadBuffer {
			t.Fatalf("space for %d, buffer of %d", len(space), len(s.buf))
		}
		size := len(b)
		if len(sizes) > 0 {
			size = min(size, 1+int(sizes[i%len(sizes)])*37)
		}
		n := copy(space, b[:size])
		b = b[n:]
		if err := s.next(n, give); err != nil {
			return list, true
		}
	}
	return list, false
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 1, 7, 0, 0, 0, 2, 8, 9}, []byte{0})
	f.Add([]byte{0x3f, 0xff, 1}, []byte{1, 2})
	f.Add(append([]byte{0x3f, 0xfe}, make([]byte, MaxDatagram+5)...), []byte{255})
	f.Add(append([]byte{0x20, 0}, make([]byte, 0x2010)...), []byte{})
	f.Add(make([]byte, 1000), []byte{3})
	f.Fuzz(func(t *testing.T, b, sizes []byte) {
		want, wantBad := slowSplit(b)
		got, bad := split(t, b, sizes)
		if bad != wantBad {
			t.Fatalf("bad %v, want %v", bad, wantBad)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBatches has more datagrams than go over at once, and frames of all sizes.
func TestBatches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for i := range 2000 {
		n := rnd.IntN(60)
		if i%97 == 0 {
			n = rnd.IntN(MaxDatagram + 1)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(n)), bytes.Repeat([]byte{byte(i)}, n)...)
	}
	want, _ := slowSplit(b)
	for _, sizes := range [][]byte{nil, {0}, {255}, {1, 40, 0, 200}} {
		got, bad := split(t, b, sizes)
		if bad || !slices.EqualFunc(want, got, bytes.Equal) {
			t.Errorf("pieces %v: bad %v, %d datagrams, want the same %d", sizes, bad, len(got), len(want))
		}
	}
}

func TestNoAllocations(t *testing.T) {
	q := queue{store: new(store)}
	datagrams := make([][]byte, 8)
	for i := range datagrams {
		datagrams[i] = make([]byte, 1400)
	}
	var s splitter
	got := 0
	give := func(list [][]byte) { got += len(list) }
	cycle := func() {
		for _, d := range datagrams {
			q.push(time.Second, d)
		}
		record, _, _ := q.take(0)
		n := copy(s.space(), record)
		if err := s.next(n, give); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // the read buffer grows at first
		cycle()
	}
	if n := testing.AllocsPerRun(1000, cycle); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got == 0 {
		t.Error("no datagrams")
	}
}

func BenchmarkQueue(b *testing.B) {
	q := queue{store: new(store)}
	d := make([]byte, 1400)
	b.SetBytes(8 * 1400)
	for b.Loop() {
		for range 8 {
			q.push(0, d)
		}
		q.take(0)
	}
}
