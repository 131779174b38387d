package wg

import (
	"sync/atomic"

	"corax/dataplane"
)

// drop names a reason for which a packet or datagram is dropped here or, as far
// as its log shows, in wireguard-go.
type drop uint8

const (
	dropUnknown          drop = iota // datagram of no known kind
	dropNoReceiver                   // STUN, probe or relay frame, and nobody takes it
	dropIndex                        // receiver index of no session
	dropMAC1                         // handshake message not meant for our key
	dropInitiation                   // initiation that does not decrypt
	dropResponse                     // response that does not authenticate
	dropPeer                         // initiation of a key that is no peer
	dropReplay                       // initiation seen before, or an older one
	dropFlood                        // initiations of one peer too close together
	dropSource                       // inner source that the peer does not own
	dropInner                        // decrypted, and not IP
	dropNoPeer                       // no peer has the destination
	dropNoSession                    // the peer has no session, and enough waits for one
	dropNoPath                       // the peer has no path
	dropNoFamily                     // the path is of a family without socket
	dropTooBig                       // larger than a datagram can carry
	dropStopped                      // the device does not run
	dropHandshakeExpired             // kept for a path that came too late, or replaced
	dropCrossed                      // initiation that crossed ours, which goes first
	dropCopy                         // initiation that was answered before; so it is once more
	dropBusy                         // handshake message, and wireguard-go has too many
	dropOrigin                       // of another peer than the stream or label says
	dropFeed                         // from a stream or an extra socket, and too many wait
	dropSocket                       // the path's socket was closed
	dropStream                       // the stream takes no more
	dropLabel                        // relay frame with an unknown label
	dropHop                          // relay frame from elsewhere than its label's peer
	dropContent                      // relay frame with neither WireGuard nor STUN in it
	dropReflect                      // relay frame that would go back where it came from
	dropNoHop                        // relay frame, and the next hop has no path
	dropShare                        // relay frame of a pair above its share
	dropRelayFull                    // relay frame, and the socket or stream is full
	dropNotAllowed                   // from a source outside the allow list
	dropDestination                  // to a destination outside the allow list
	dropCount
)

func (d drop) String() string {
	return [dropCount]string{
		"unknown", "no_receiver", "unknown_index", "mac1", "initiation", "response", "unknown_peer", "replay", "flood", "source",
		"malformed_inner", "no_peer", "no_session", "no_path", "no_family", "too_big", "stopped", "handshake_expired", "crossed", "answered_again",
		"handshake_queue_full", "wrong_origin", "feed_full", "no_socket", "stream_full", "unknown_label", "wrong_hop", "relay_content",
		"reflection", "no_next_hop", "unfair", "relay_queue_full", "source_not_allowed", "destination_not_allowed",
	}[d]
}

// drops counts per reason. The zero value is ready; it is safe for concurrent use.
type drops struct {
	n [dropCount]atomic.Uint64
	// named is how many initiations were counted by a closer reason than
	// dropInitiation, which wireguard-go tells of them next.
	named atomic.Int64
}

func (d *drops) add(why drop, n int) { d.n[why].Add(uint64(n)) }

// addTold counts one packet whose drop wireguard-go tells of, maybe twice. Its
// handshake workers do so at the same time: which of two initiations gets which
// reason does not matter, only that each is counted once.
func (d *drops) addTold(why drop) {
	switch why {
	case dropReplay, dropFlood:
		d.named.Add(1)
	case dropInitiation:
		for n := d.named.Load(); n > 0; n = d.named.Load() {
			if d.named.CompareAndSwap(n, n-1) {
				return
			}
		}
	}
	d.add(why, 1)
}

func (d *drops) list() []dataplane.Counter {
	out := make([]dataplane.Counter, dropCount)
	for i := range out {
		out[i] = dataplane.Counter{Name: "wg_drop_total", Reason: drop(i).String(), Value: d.n[i].Load()}
	}
	return out
}
