package path

import (
	"encoding/binary"
	"time"
)

const (
	flightFor  = 3 * time.Second // an answer that comes later is not believed
	maxFlights = 4096

	// A machine sends at most probeBurst probes at once and probeRate a second.
	// The last probeReserve of the burst are for the ways in use.
	probeRate    = 200
	probeBurst   = 150
	probeReserve = 20
)

type purpose uint8

const (
	forProof purpose = iota // opens and proves
	forLife                 // on a proven way: its loss counts
	forMTU
)

// flight is a probe that may still be answered.
type flight struct {
	tx      TxID
	way     Way
	pair    *pair // nil: a port of the birthday search
	at      time.Time
	purpose purpose
	size    int // inner MTU that it proves
	done    bool
}

// flights holds them in the order they were sent, and the rate limit.
type flights struct {
	queue  []flight // done ones are skipped
	head   int
	byTx   map[TxID]int // index into queue, plus base
	base   int          // what was cut off the queue's front
	tokens float64
	filled time.Time
	sent   uint64
	bad    uint64
}

func (f *flights) clear() {
	f.queue, f.head, f.base, f.byTx = nil, 0, 0, nil
}

// expire drops what was not answered in time.
func (m *Machine) expire() {
	f := &m.flights
	for f.head < len(f.queue) && m.now.Sub(f.queue[f.head].at) >= flightFor {
		fl := f.queue[f.head]
		f.pop()
		if !fl.done {
			m.unanswered(&fl)
		}
	}
}

func (f *flights) pop() {
	fl := &f.queue[f.head]
	if !fl.done {
		delete(f.byTx, fl.tx)
	}
	*fl = flight{}
	f.head++
	if f.head*2 >= len(f.queue) && f.head > 32 || f.head == len(f.queue) {
		n := copy(f.queue, f.queue[f.head:])
		clear(f.queue[n:])
		f.queue, f.base, f.head = f.queue[:n], f.base+f.head, 0
	}
}

func (f *flights) add(fl flight) {
	if f.byTx == nil {
		f.byTx = make(map[TxID]int)
	}
	if len(f.queue)-f.head >= maxFlights {
		f.pop()
	}
	f.byTx[fl.tx] = f.base + len(f.queue)
	f.queue = append(f.queue, fl)
}

// take returns the flight of an answer over way, once. An answer from another
// address than the probe went to proves nothing (RFC 8445 section 7.2.5.2.1).
func (f *flights) take(tx TxID, way Way) (flight, bool) {
	i, ok := f.byTx[tx]
	if !ok || f.queue[i-f.base].way != way {
		f.bad++
		return flight{}, false
	}
	delete(f.byTx, tx)
	fl := &f.queue[i-f.base]
	fl.done = true
	return *fl, true
}

// allow spends a token, when more than reserve are left.
func (f *flights) allow(now time.Time, reserve float64) bool {
	f.fill(now)
	if f.tokens < 1+reserve {
		return false
	}
	f.tokens--
	return true
}

func (f *flights) fill(now time.Time) {
	if f.filled.IsZero() {
		f.tokens = probeBurst
	} else {
		f.tokens = min(probeBurst, f.tokens+probeRate*now.Sub(f.filled).Seconds())
	}
	f.filled = now
}

// refilled returns when allow may say yes again, plus a few more.
func (f *flights) refilled(now time.Time) time.Time { return now.Add(20 * time.Millisecond) }

func (m *Machine) newTx() (tx TxID) {
	binary.LittleEndian.PutUint64(tx[:], m.cfg.Rand.Uint64())
	binary.LittleEndian.PutUint32(tx[8:], m.cfg.Rand.Uint32())
	return tx
}

// launch sends a probe on way when the rate allows.
func (m *Machine) launch(fl flight, ttl int) bool {
	reserve := float64(probeReserve)
	if fl.purpose == forLife || fl.pair != nil && fl.pair == m.cur {
		reserve = 0
	}
	if !m.flights.allow(m.now, reserve) {
		return false
	}
	fl.tx, fl.at = m.newTx(), m.now
	m.flights.add(fl)
	m.flights.sent++
	probe := SendProbe{Tx: fl.tx, Way: fl.way}
	if fl.way.Kind == Direct {
		probe.TTL = ttl
	}
	if fl.size != 0 {
		probe.Size, probe.DF = fl.size+overheadWG, true
	}
	if fl.pair != nil {
		fl.pair.probes++
		if fl.purpose != forMTU {
			fl.pair.sent = m.now
		}
	}
	m.do(probe)
	return true
}

// unanswered takes note of a probe that nobody answered.
func (m *Machine) unanswered(fl *flight) {
	if fl.purpose != forLife || fl.pair == nil {
		return
	}
	p := fl.pair
	p.quality.miss()
	p.misses++
	if p.misses >= 3 && p != m.cur {
		p.proven, p.dead = false, true
	}
}
