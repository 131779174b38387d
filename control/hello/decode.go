package hello

// value is one decoded topic: a pointer to Self, Candidates, Relay, Costs or
// Claims. unknown reports map keys that this version does not have.
type value struct {
	v       any
	unknown bool
}

// decode decodes the value of a topic. A value out of bounds is refused whole;
// a single entry that cannot be used is left out and counted in n.
func (c *codec) decode(t Topic, b []byte, n *names) (v value, err error) {
	switch t {
	case TopicSelf:
		v, err = c.decodeSelf(b)
	case TopicCandidates:
		v, err = c.decodeCandidates(b, n)
	case TopicRelay:
		v, err = c.decodeRelay(b, n)
	case TopicCosts:
		v, err = c.decodeCosts(b, n)
	case TopicClaims:
		v, err = c.decodeClaims(b)
	default:
		err = errTopic
	}
	if err == nil {
		err = n.err
	}
	if err != nil {
		return value{}, err
	}
	return v, nil
}

func (c *codec) decodeSelf(b []byte) (value, error) {
	var w wireSelf
	unknown, err := unmarshal(c, b, &w)
	if err != nil {
		return value{}, err
	}
	for _, text := range []string{w.Version, w.Gateway, w.Node} {
		if err := validText(text); err != nil {
			return value{}, err
		}
	}
	s := Self(w)
	return value{&s, unknown}, nil
}

func (c *codec) decodeCandidates(b []byte, n *names) (value, error) {
	var w wireCandidates
	unknown, err := unmarshal(c, b, &w)
	if err != nil {
		return value{}, err
	}
	if err := bound("candidates", len(w.Addrs), MaxAddrs); err != nil {
		return value{}, err
	}
	v := &Candidates{
		Mapping: w.Mapping, Filtering: w.Filtering, PortStep: w.PortStep,
		Blocked: w.Blocked, Calls: w.Calls, MTU: w.MTU,
	}
	if len(w.ProbeID) != len(v.ProbeID) || len(w.ProbeKey) != len(v.ProbeKey) {
		return value{}, errForm
	}
	copy(v.ProbeID[:], w.ProbeID)
	copy(v.ProbeKey[:], w.ProbeKey)
	if v.ProbeKey == ([32]byte{}) { // anybody could forge probes under it
		return value{}, errForm
	}
	for _, a := range w.Addrs {
		addr, ok := addrPort(a.Addr)
		if !ok {
			n.refused++
			continue
		}
		v.Addrs = append(v.Addrs, Candidate{a.Kind, addr})
	}
	if tx := len(v.Test.Tx); len(w.Test) > 0 {
		if len(w.Test) < tx {
			return value{}, errForm
		}
		if addr, ok := addrPort(w.Test[tx:]); ok {
			v.Test.Addr = addr
			copy(v.Test.Tx[:], w.Test)
		} else {
			n.refused++
		}
	}
	return value{v, unknown}, nil
}

func (c *codec) decodeRelay(b []byte, n *names) (value, error) {
	var w wireRelay
	unknown, err := unmarshal(c, b, &w)
	if err != nil {
		return value{}, err
	}
	if err := bound("wanted peers", len(w.Wanted), MaxWanted); err != nil {
		return value{}, err
	}
	if err := bound("labels", len(w.Labels), MaxLabels); err != nil {
		return value{}, err
	}
	v := &Relay{}
	for _, x := range w.Wanted {
		ok := len(x.Peer) > 0
		want := Want{n.key(x.Peer, &ok), n.key(x.Next, &ok), n.key(x.Origin, &ok)}
		if ok {
			v.Wanted = append(v.Wanted, want)
		}
	}
	for _, x := range w.Labels {
		ok := len(x.Peer) > 0
		l := Label{Peer: n.key(x.Peer, &ok), Label: x.Label, CostMicros: x.Cost, Origin: n.key(x.Origin, &ok)}
		if !validLabel(x.Label) || len(x.Via) > MaxVia {
			return value{}, errForm
		}
		for _, hub := range x.Via {
			ok = ok && len(hub) > 0
			l.Via = append(l.Via, n.key(hub, &ok))
		}
		if ok {
			v.Labels = append(v.Labels, l)
		}
	}
	return value{v, unknown}, nil
}

func (c *codec) decodeCosts(b []byte, n *names) (value, error) {
	var w wireCosts
	unknown, err := unmarshal(c, b, &w)
	if err != nil {
		return value{}, err
	}
	if err := bound("links", len(w.Links), MaxLinks); err != nil {
		return value{}, err
	}
	v := &Costs{}
	for _, x := range w.Links {
		ok := len(x.To) > 0
		l := Link{To: n.key(x.To, &ok), Micros: x.Micros, Hub: x.Hub}
		if ok {
			v.Links = append(v.Links, l)
		}
	}
	return value{v, unknown}, nil
}

func (c *codec) decodeClaims(b []byte) (value, error) {
	var w wireClaims
	unknown, err := unmarshal(c, b, &w)
	if err != nil {
		return value{}, err
	}
	if err := validActive(w.Gateway, w.Active); err != nil {
		return value{}, err
	}
	return value{&Claims{Gateway: w.Gateway, Epoch: w.Epoch, Active: w.Active}, unknown}, nil
}
