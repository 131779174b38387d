// Package nat finds the ways between the gateway nodes: Agent owns one path
// machine (nat/path) per peer that needs one, and everything that they share.
//
//	 control.Plan                                    hello ◄─► peers
//	      │ SetPlan                                    │ candidates, wants, labels, costs
//	      ▼                                            ▼
//	┌─ Agent.Run, one goroutine ───────────────────────────────┐
//	│ path.Machine per peer │ stun.Discovery │ relay.Book │ …  │
//	└──────────────────────────────────────────────────────────┘
//	   ▲ Wanted, Proven, Receive (bounded)    │ SetPath, SetLabels, SendRaw
//	   └────────────── Tunnel ◄───────────────┘
//
// Which peers get a machine:
//
//   - Hubs that we keep a session with: always. It is wanted all the time.
//   - Any other peer of another domain: from the first packet for it on, or when
//     it calls. A minute after the last packet the machine sleeps; the labels
//     stay for some minutes more, so that the next packet finds a way.
//   - An edge that keeps a session with us, a hub: none while the session lives.
//     It chooses the path, and the tunnel follows it.
//   - Peers of the own domain: none, they are reached at their addresses.
//
// The tunnel's callbacks only note things and copy datagrams into bounded queues.
package nat
