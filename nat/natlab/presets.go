package natlab

// FullCone is endpoint independent in mapping and filtering.
func FullCone() NAT { return NAT{Mapping: EndpointIndependent, Filtering: EndpointIndependent} }

// AddressRestricted filters by address.
func AddressRestricted() NAT { return NAT{Mapping: EndpointIndependent, Filtering: AddressDependent} }

// PortRestricted filters by address and port.
func PortRestricted() NAT {
	return NAT{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent}
}

// Masquerade is an ordinary Linux router. It looks port restricted, but with
// INPUT open an unsolicited packet takes the port away that the flow to its
// sender would have had.
func Masquerade(inputOpen bool) NAT {
	return NAT{
		Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent,
		Conntrack: true, InputOpen: inputOpen,
	}
}

// SymmetricSequential gives each destination the next port, step further.
func SymmetricSequential(step int) NAT {
	return NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Sequential, Step: step}
}

// SymmetricRandom gives each destination a random port.
func SymmetricRandom() NAT {
	return NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Random}
}
