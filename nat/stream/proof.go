package stream

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"

	"corax/dataplane/key"
)

const (
	exporterLabel = "EXPORTER-corax"
	exporterSize  = 32
	macSize       = sha256.Size
	proofSize     = key.Size + macSize
)

// A role is what the sender of a MAC is. Two words, so that a MAC is worth
// nothing when it is sent back.
type role string

const (
	roleClient role = "client"
	roleHub    role = "hub"
)

var (
	// ErrRefused says that the hub ended the stream instead of proving its key:
	// it does not know ours, or somebody sits between the two.
	ErrRefused = errors.New("the hub does not accept our key, or somebody sits in between")
	// ErrImpostor says that whoever answered does not have the hub's key.
	ErrImpostor = errors.New("the answer does not prove the hub's key")

	errUnknownKey = errors.New("unknown key")
	errBadMAC     = errors.New("bad MAC")
)

// export returns what only the two ends of this TLS session know.
func export(c *tls.Conn) ([]byte, error) {
	state := c.ConnectionState()
	return state.ExportKeyingMaterial(exporterLabel, nil, exporterSize)
}

// mac returns the MAC that the sender in role r makes; both ends can.
func mac(own key.Private, peer key.Public, exporter []byte, r role) ([macSize]byte, error) {
	secret, err := own.SharedSecret(peer)
	if err != nil {
		return [macSize]byte{}, err
	}
	h := hmac.New(sha256.New, secret[:])
	h.Write(exporter)
	h.Write([]byte(r))
	return [macSize]byte(h.Sum(nil)), nil
}

// proveClient is the client's side: it sends its proof and checks the hub's.
func proveClient(rw io.ReadWriter, own key.Private, hub key.Public, exporter []byte) error {
	public := own.Public()
	sent, err := mac(own, hub, exporter, roleClient)
	if err != nil {
		return err
	}
	proof := append(append(make([]byte, 0, proofSize), public[:]...), sent[:]...)
	if _, err := rw.Write(proof); err != nil {
		return fmt.Errorf("send proof: %w", err)
	}
	var answer [macSize]byte
	switch _, err := io.ReadFull(rw, answer[:]); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer to our proof: %w", err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	want, err := mac(own, hub, exporter, roleHub)
	if err != nil {
		return err
	}
	if !hmac.Equal(answer[:], want[:]) {
		return ErrImpostor
	}
	return nil
}

// proveHub is the hub's side: it answers a good proof, and nothing else.
func proveHub(rw io.ReadWriter, own key.Private, known func(key.Public) bool, exporter []byte) (key.Public, error) {
	var proof [proofSize]byte
	if _, err := io.ReadFull(rw, proof[:]); err != nil {
		return key.Public{}, fmt.Errorf("read proof: %w", err)
	}
	peer := key.Public(proof[:key.Size])
	if !known(peer) { // before any arithmetic for a stranger
		return key.Public{}, errUnknownKey
	}
	want, err := mac(own, peer, exporter, roleClient)
	if err != nil || !hmac.Equal(proof[key.Size:], want[:]) {
		return key.Public{}, errBadMAC
	}
	answer, err := mac(own, peer, exporter, roleHub)
	if err != nil {
		return key.Public{}, err
	}
	if _, err := rw.Write(answer[:]); err != nil {
		return key.Public{}, fmt.Errorf("send proof: %w", err)
	}
	return peer, nil
}
