//go:build linux

package lab

// Kind is a way to be connected to the Internet, as far as it decides who can
// open a way to whom.
type Kind struct {
	Name string
	NATs []NAT // from the node outwards; none: a public address
	V6   bool  // global IPv6 addresses, behind a firewall
	// Symmetric: the mapping depends on the destination.
	Symmetric bool
	Blocked   bool // UDP
}

// Kinds are the ways that every traversal is tested with.
func Kinds() []Kind {
	one := func(name string, nat NAT) Kind {
		nat.V6 = V6Block
		return Kind{
			Name: name, NATs: []NAT{nat},
			Symmetric: nat.Mapping == MapRandom || nat.Mapping == MapSequential, Blocked: nat.BlockUDP,
		}
	}
	restricted := NAT{Mapping: MapCone, V6: V6Block}
	return []Kind{
		{Name: "public"},
		one("full cone", NAT{Mapping: MapCone, Filtering: FilterNone}),
		one("address-restricted", NAT{Mapping: MapCone, Filtering: FilterAddress}),
		one("port-restricted", restricted),
		one("Linux", NAT{Mapping: MapOpen}),
		one("sequential", NAT{Mapping: MapSequential}),
		one("random", NAT{Mapping: MapRandom}),
		{Name: "double", NATs: []NAT{restricted, {Mapping: MapKeepPort, V6: V6Block}}},
		one("UDP blocked", NAT{Mapping: MapKeepPort, BlockUDP: true}),
		{Name: "IPv6", NATs: []NAT{{Mapping: MapRandom, V6: V6Firewall}}, V6: true, Symmetric: true},
	}
}

// Direct reports whether two sites of these kinds can be expected to open a
// direct way to each other.
func (k Kind) Direct(other Kind) bool {
	switch {
	case k.Blocked || other.Blocked:
		return false
	case k.V6 && other.V6:
		return true
	default:
		return !k.Symmetric || !other.Symmetric
	}
}
