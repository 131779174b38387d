package hello

import "fmt"

// Domain is what a node says to another of its own domain, over VXLAN or, between
// gateway nodes, WireGuard: one datagram on the hello port of the overlay
// addresses.
type Domain struct {
	Gateway, Node string
	// Ask wants the receiver, a listed endpoint, to say what it knows, now and
	// whenever it changes in the next half minute.
	Ask bool
	// Listed says that the sender is a listed endpoint: Epoch and Active are as
	// in Claims.
	Listed bool
	Epoch  uint64
	Active []string
}

// DomainCodec encodes and decodes Domain. It is safe for concurrent use.
type DomainCodec struct{ codec *codec }

// NewDomainCodec makes a codec.
func NewDomainCodec() (*DomainCodec, error) {
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	return &DomainCodec{c}, nil
}

// Encode makes the datagram of d.
func (c *DomainCodec) Encode(d Domain) ([]byte, error) {
	err := validActive(d.Gateway, d.Active)
	if err == nil {
		err = validText(d.Node)
	}
	var value, b []byte
	if err == nil {
		value, err = c.codec.enc.Marshal(wireDomain(d))
	}
	if err == nil && len(value) > maxPiece {
		err = errSize
	}
	if err == nil {
		b, err = c.codec.enc.Marshal(message{Instance: 1, Topic: uint64(topicDomain), Sequence: 1, Piece: value})
	}
	if err != nil {
		return nil, fmt.Errorf("hello: domain: %w", err)
	}
	return b, nil
}

// Decode decodes a datagram of the hello port. ok is false when it is of another
// kind, for an [Exchange]; an error then says nothing. Map keys that this version
// does not have are ignored.
func (c *DomainCodec) Decode(b []byte) (d Domain, ok bool, err error) {
	var m message
	if len(b) > MaxMessage {
		return Domain{}, false, errSize
	}
	if _, err := unmarshal(c.codec, b, &m); err != nil || m.Topic != uint64(topicDomain) {
		return Domain{}, false, err
	}
	if len(m.Piece) > maxPiece {
		return Domain{}, true, errSize
	}
	var w wireDomain
	_, err = unmarshal(c.codec, m.Piece, &w)
	if err == nil {
		err = validActive(w.Gateway, w.Active)
	}
	if err == nil {
		err = validText(w.Node)
	}
	if err != nil {
		return Domain{}, true, fmt.Errorf("hello: domain: %w", err)
	}
	return Domain(w), true, nil
}
