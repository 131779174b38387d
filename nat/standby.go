package nat

import (
	"time"

	"corax/control/hello"
)

const (
	// silentFor is how many seconds a wanted path is not proven before the other
	// listed endpoints of the peer's gateway are called: one of them may have
	// taken over, and only a peer that it has a session with hears of it.
	silentFor = 2
	// standbyEvery is the least time between two calls of one of them.
	standbyEvery = 5 * time.Second
)

// claimed tells of what a peer says of its domain, when that is another thing
// than before.
func (a *Agent) claimed(p *peer, c *hello.Claims) {
	if p.claims == c || c == nil && p.SameDomain {
		return
	}
	p.claims = c
	a.cfg.Claimed(p.Key, c)
}

// unheardFor is how long nothing may come from a peer that is sent to.
const unheardFor = 3 * time.Second

// listen counts for how long a path that is wanted does not work.
func (a *Agent) listen(p *peer, now time.Time) {
	asked := p.last.Sent != p.sentBefore && now.Sub(p.last.Heard) > unheardFor
	p.sentBefore = p.last.Sent
	if p.active() && (asked || !p.machine.Proven()) {
		p.silence++
		return
	}
	p.silence = 0
}

// callStandbys makes paths to the other listed endpoints of gateways whose peer
// fell silent.
func (a *Agent) callStandbys(now time.Time) {
	var silent map[string]bool
	for _, p := range a.peers {
		if p.silence >= silentFor {
			set(&silent, p.Gateway, true)
		}
	}
	if silent == nil {
		return
	}
	for _, p := range a.peers {
		if !silent[p.Gateway] || p.SameDomain || p.silence > 0 || now.Sub(p.standing) < standbyEvery || a.passive(p) {
			continue
		}
		p.standing = now
		a.log.Debug("a standby is called, since its gateway is silent", "gateway", p.Gateway, "node", p.Node)
		a.machineOf(p)
		a.want(p)
	}
}
