package path

// Reason says why the path is what it is. Its numbers are not stable; its words
// and codes are what users see.
type Reason uint8

// Why the present path is not better (Status.Why), what is the matter with a
// candidate (CandidateStatus.Why), and what caused a transition (Transition.Cause).
const (
	ReasonNone Reason = iota
	ReasonIdle
	ReasonWanted
	ReasonNoWay
	ReasonBest
	ReasonUnprobed
	ReasonNoProbeKey
	ReasonNoCandidates
	ReasonProbing
	ReasonPredicting
	ReasonBirthday
	ReasonBirthdayFailed
	ReasonBirthdayNoRelay
	ReasonSocketsRefused
	ReasonLocalBlocked
	ReasonRemoteBlocked
	ReasonBothRandom
	ReasonNoAnswer
	ReasonCheaper
	ReasonRelayCheaper
	ReasonSilent
	ReasonReproving
	ReasonProven
	ReasonStale
	ReasonLost
	ReasonNetworkChanged
	ReasonRelays
	ReasonForbidden
	ReasonLeaving
	reasonsEnd
)

type words struct{ code, text string }

func (r Reason) entry() words {
	switch r {
	case ReasonIdle:
		return words{"idle", "no traffic for a minute"}
	case ReasonWanted:
		return words{"wanted", "there is traffic for the peer"}
	case ReasonNoWay:
		return words{"no-way", "no relay and no address of the peer is known"}
	case ReasonBest:
		return words{"best", "this is the best way"}
	case ReasonUnprobed:
		return words{"unprobed", "used without probes, since the peer has not told its probe key"}
	case ReasonNoProbeKey:
		return words{"no-probe-key", "the peer has not told its probe key yet"}
	case ReasonNoCandidates:
		return words{"no-candidates", "the peer has told no address that may be probed"}
	case ReasonProbing:
		return words{"probing", "direct ways are being probed"}
	case ReasonPredicting:
		return words{"predicting", "the next ports of a sequential NAT are being probed"}
	case ReasonBirthday:
		return words{"birthday", "a port of a random NAT is being searched for"}
	case ReasonBirthdayFailed:
		return words{"birthday-failed", "no port of the random NAT was found; searched again when something changes"}
	case ReasonBirthdayNoRelay:
		return words{"birthday-no-relay", "a random NAT is searched only while a relay works"}
	case ReasonSocketsRefused:
		return words{"sockets-refused", "the sockets for a search through a random NAT could not be opened"}
	case ReasonLocalBlocked:
		return words{"local-udp-blocked", "UDP is blocked on this side"}
	case ReasonRemoteBlocked:
		return words{"remote-udp-blocked", "UDP is blocked on the peer's side"}
	case ReasonBothRandom:
		return words{"both-random", "both NATs give each destination another, random port"}
	case ReasonNoAnswer:
		return words{"no-answer", "no probe was answered; tried again later"}
	case ReasonCheaper:
		return words{"cheaper", "it costs clearly less"}
	case ReasonRelayCheaper:
		return words{"relay-cheaper", "a direct way works, but the relay costs less"}
	case ReasonSilent:
		return words{"silent", "nothing comes back on it"}
	case ReasonReproving:
		return words{"reproving", "the direct way is proven anew after a pause"}
	case ReasonProven:
		return words{"proven", "a probe on it was answered"}
	case ReasonStale:
		return words{"stale", "it worked before, but was not proven lately"}
	case ReasonLost:
		return words{"lost", "the way is gone"}
	case ReasonNetworkChanged:
		return words{"network-changed", "our network changed"}
	case ReasonRelays:
		return words{"relays-changed", "other relays are offered"}
	case ReasonLeaving:
		return words{"relay-leaving", "the relay is about to stop"}
	case ReasonForbidden:
		return words{"forbidden", "this address is never probed"}
	}
	return words{"none", "nothing was tried yet"}
}

// Reasons is the number of reasons: they are those below it.
const Reasons = reasonsEnd

// Code returns the stable name of the reason, such as "local-udp-blocked".
func (r Reason) Code() string { return r.entry().code }

// String returns the reason in words.
func (r Reason) String() string { return r.entry().text }

func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}
