package cost

import (
	"math/bits"
	"time"
)

const (
	// Unknown is the cost of a link that never answered, and the upper bound
	// of every cost: sums of a few of them do not overflow.
	Unknown = time.Hour

	// window is the number of probes that the loss is counted over.
	window = 32

	// lossPenalty is the cost of losing everything. A lost packet costs a TCP
	// flow at least its retransmission timeout (RFC 6298: 1 s, in practice
	// 200 ms and up), and lowers its rate for many round trips after that.
	lossPenalty = time.Second
)

// Estimator smooths round trip times and counts losses of one link, per probe.
// The zero value is ready. It is not safe for concurrent use.
type Estimator struct {
	srtt, rttvar time.Duration
	history      uint32 // the last probes, newest in bit 0; set: lost
	probes       int    // valid bits in history
	sent, heard  time.Time

	// Samples in a row far from base, all on one side of it: the link changed.
	away        int
	base, limit time.Duration
	sum         time.Duration
}

// steps is after how many samples far away the smoothing begins anew: by itself
// it would take dozens of them to forget a way that was slow.
const steps = 3

// Sent notes a probe. Each is later either Answered or Lost, exactly once.
func (e *Estimator) Sent(now time.Time) { e.sent = now }

// Answered notes that a probe was answered after rtt. A negative rtt counts as
// zero.
func (e *Estimator) Answered(now time.Time, rtt time.Duration) {
	rtt = min(max(rtt, 0), Unknown)
	switch {
	case e.heard.IsZero(): // RFC 6298 section 2.2
		e.srtt, e.rttvar = rtt, rtt/2
	case e.stepped(rtt):
		e.srtt, e.rttvar = e.sum/steps, e.sum/steps/4
		e.away, e.sum = 0, 0
	default: // section 2.3, alpha 1/8 and beta 1/4
		e.rttvar += ((e.srtt - rtt).Abs() - e.rttvar) / 4
		e.srtt += (rtt - e.srtt) / 8
	}
	e.heard = now
	e.note(0)
}

// stepped reports whether rtt is the last of some in a row that show another link.
func (e *Estimator) stepped(rtt time.Duration) bool {
	if e.away == 0 {
		e.base, e.limit = e.srtt, max(e.srtt/2, 4*e.rttvar)
	}
	d := rtt - e.base
	if d.Abs() <= e.limit && d >= -e.base/2 || e.away > 0 && (d < 0) != (e.sum < e.base*time.Duration(e.away)) {
		e.away, e.sum = 0, 0
		return false
	}
	e.away++
	e.sum += rtt
	return e.away == steps
}

// Lost notes that a probe got no answer in time.
func (e *Estimator) Lost(time.Time) { e.note(1) }

func (e *Estimator) note(lost uint32) {
	e.history = e.history<<1 | lost
	e.probes = min(e.probes+1, window)
}

// Known reports whether a probe was ever answered.
func (e *Estimator) Known() bool { return !e.heard.IsZero() }

// RTT returns the smoothed round trip time; zero when no probe was answered.
func (e *Estimator) RTT() time.Duration { return e.srtt }

// Deviation returns the smoothed mean deviation of the round trip time.
func (e *Estimator) Deviation() time.Duration { return e.rttvar }

// LastSent returns when the last probe was sent, and LastAnswer when the last
// one was answered; zero when none was.
func (e *Estimator) LastSent() time.Time { return e.sent }

// LastAnswer: see LastSent.
func (e *Estimator) LastAnswer() time.Time { return e.heard }

// Loss returns the share of the last 32 probes that were lost, 0 to 1.
func (e *Estimator) Loss() float64 {
	if e.probes == 0 {
		return 0
	}
	return float64(e.lost()) / float64(e.probes)
}

func (e *Estimator) lost() int { return bits.OnesCount32(e.history) }

// Cost returns the smoothed round trip time plus the loss penalty: 1 s times the
// share lost, where the first lost probe of the 32 is free (a single one says
// nothing, and would cost 31 ms). Without any answer it is [Unknown].
func (e *Estimator) Cost() time.Duration {
	if !e.Known() {
		return Unknown
	}
	lost := max(e.lost()-1, 0)
	return min(e.srtt+lossPenalty*time.Duration(lost)/window, Unknown)
}
