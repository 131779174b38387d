package hello

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

const (
	// MaxMessage is the size of the largest message in bytes: with all headers
	// it fits the smallest MTU that a path may have.
	MaxMessage = 1200

	// overhead is the most that a message adds to its piece of the value:
	// map 1, instance 10, topic 2, sequence 10, part 3, parts 3, bytes 4.
	overhead = 33
	maxPiece = MaxMessage - overhead
)

// maxParts is the number of parts that a topic's value may have.
func maxParts(t Topic) int {
	switch t {
	case TopicRelay, TopicCosts:
		return 128
	case TopicClaims:
		return 2
	case TopicCandidates:
		return 4
	}
	return 1
}

// message is one datagram.
type message struct {
	Instance uint64 `cbor:"1,keyasint"`
	Topic    uint64 `cbor:"2,keyasint"`
	Sequence uint64 `cbor:"3,keyasint"`
	Part     uint8  `cbor:"4,keyasint,omitempty"`
	Parts    uint8  `cbor:"5,keyasint,omitempty"` // zero: 1
	Piece    []byte `cbor:"6,keyasint"`
}

// codec holds the modes of the CBOR library; they are immutable.
type codec struct {
	enc             cbor.EncMode
	strict, lenient cbor.DecMode
}

func newCodec() (*codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	opt := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: max(MaxAddrs, MaxWanted, MaxLabels, MaxLinks),
		MaxMapPairs:      32,
	}
	lenient, err := opt.DecMode()
	if err != nil {
		return nil, err
	}
	opt.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	strict, err := opt.DecMode()
	if err != nil {
		return nil, err
	}
	return &codec{enc, strict, lenient}, nil
}

// unmarshal decodes b, all of it, into v, which must be zero. unknown reports
// whether it held map keys that v does not have.
func unmarshal[T any](c *codec, b []byte, v *T) (unknown bool, err error) {
	err = c.strict.Unmarshal(b, v)
	if _, ok := errors.AsType[*cbor.UnknownFieldError](err); !ok {
		return false, err
	}
	*v = *new(T)
	return true, c.lenient.Unmarshal(b, v)
}

var (
	errSize  = errors.New("too big")
	errForm  = errors.New("a field is missing or out of range")
	errTopic = errors.New("unknown topic")
)

// parse decodes a datagram. The message does not alias b.
func (c *codec) parse(b []byte) (m message, unknown bool, err error) {
	if len(b) > MaxMessage {
		return message{}, false, errSize
	}
	if unknown, err = unmarshal(c, b, &m); err != nil {
		return message{}, false, err
	}
	if m.Topic == 0 || m.Topic >= uint64(topicEnd) {
		return message{}, unknown, errTopic
	}
	if m.Parts == 0 {
		m.Parts = 1
	}
	if m.Instance == 0 || m.Sequence == 0 || m.Part >= m.Parts ||
		int(m.Parts) > maxParts(Topic(m.Topic)) || len(m.Piece) == 0 {
		return message{}, unknown, errForm
	}
	return m, unknown, nil
}

// split encodes a value as datagrams.
func (c *codec) split(instance uint64, t Topic, sequence uint64, value []byte) ([][]byte, error) {
	parts := (len(value) + maxPiece - 1) / maxPiece
	if parts > maxParts(t) {
		return nil, fmt.Errorf("%s: %d bytes: %w", t, len(value), errSize)
	}
	out := make([][]byte, 0, parts)
	for i := range parts {
		m := message{Instance: instance, Topic: uint64(t), Sequence: sequence}
		if parts > 1 {
			m.Part, m.Parts = uint8(i), uint8(parts)
		}
		m.Piece = value[i*maxPiece : min((i+1)*maxPiece, len(value))]
		b, err := c.enc.Marshal(m)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
