package control

import (
	"net/netip"
	"slices"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// Local is what Plan must know of this host and agent.
type Local struct {
	Node      string
	NodeIP    netip.Addr // the VXLAN underlay address
	PublicKey key.Public
	// Preshared goes into every peer; zero means none.
	Preshared key.Preshared
	// LinkMTU is the MTU of the link that has NodeIP, in bytes; zero means 1500.
	LinkMTU int
	// Prefixes are the addresses of this host, each with the length of its LAN.
	Prefixes []netip.Prefix
	// APIServer is the address of the API server; zero when there is none.
	APIServer netip.Addr
	// TunnelPort is the agent's tunnel port, which peers of the same domain are
	// taken to use too; zero means 4500.
	TunnelPort uint16
	// Claims are what listed endpoints claim at present, this node's own claim
	// among them, in any order. Those that the objects do not allow are left out.
	Claims []Claim
	// Heard is when each key was last heard of, of peers that change their key and
	// have two.
	Heard map[key.Public]time.Time
}

// Role is what a node is in its domain.
type Role uint8

// The roles. The zero Role belongs to no domain.
const (
	RoleNone    Role = iota
	RoleNode         // a node of a domain
	RoleStandby      // listed as endpoint, not active
	RoleGateway      // active as endpoint of type tunnel or proxy
)

// String returns the name as status shows it.
func (r Role) String() string {
	switch r {
	case RoleGateway:
		return "gateway"
	case RoleStandby:
		return "standby"
	case RoleNode:
		return "node"
	default:
		return "none"
	}
}

// Carrier is an active tunnel endpoint of this node's domain, seen from a node
// that is none.
type Carrier struct {
	Node    string
	Addr    netip.Addr // its node IP
	Overlay netip.Addr
	// Home says that this node sends its traffic there.
	Home bool
}

// Desired is the desired state of one agent.
type Desired struct {
	Role Role
	// Gateway is the name of the domain; empty with RoleNone.
	Gateway string
	Config  dataplane.Config
	// Carriers are the gateway nodes that this node can send through, by node
	// name; empty on a node that is one.
	Carriers []Carrier
	// Listed are the keys of this node that its peers know from the objects: the
	// public key and the next one; zero without.
	Listed, Next key.Public
	// Domain is that of this node; nil when it takes no part in tunnel mode.
	Domain *Domain
	// Problems are those of the snapshot, those between objects, and those
	// between the objects and this host; sorted, without repetitions.
	Problems []Problem
}

// Plan works out what the agent of one node should do. It is pure, and changes
// nothing of its arguments; the result shares no memory that it could write to.
func Plan(s Snapshot, l Local) Desired {
	p := newPlanner(s, l)
	p.planSelf()
	p.planPeers()
	p.planConflicts()
	p.planSubnets()
	p.planForbidden()
	p.planVTEPs()
	p.planRoutes()
	p.planAllow(s)
	p.sort()
	listed, next := p.listedKeys()
	return Desired{
		Listed: listed, Next: next,
		Role: p.role(), Gateway: p.cfg.Self.Gateway, Config: p.cfg,
		Carriers: p.carriers(), Domain: p.describe(), Problems: SortProblems(slices.Concat(s.Problems, p.mesh.problems, p.problems)),
	}
}
