package wg

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.zx2c4.com/wireguard/device"

	"corax/dataplane"
	"corax/dataplane/key"
)

// initiation lets wireguard-go itself make an initiation from one key to
// another.
func initiation(tb testing.TB, from key.Private, to key.Public, sender uint32) []byte {
	tb.Helper()
	log := device.NewLogger(device.LogLevelSilent, "")
	idle := newLink("", dataplane.DefaultMTU, nil, newTestBind())
	dev := device.NewDevice(idle, newTestBind(), log)
	defer dev.Close()
	if err := dev.SetPrivateKey(device.NoisePrivateKey(from.Bytes())); err != nil {
		tb.Fatal(err)
	}
	p, err := dev.NewPeer(device.NoisePublicKey(to))
	if err != nil {
		tb.Fatal(err)
	}
	m, err := dev.CreateMessageInitiation(p)
	if err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, 0, sizeInitiation)
	b = binary.LittleEndian.AppendUint32(b, m.Type)
	b = binary.LittleEndian.AppendUint32(b, sender)
	b = append(b, m.Ephemeral[:]...)
	b = append(b, m.Static[:]...)
	b = append(b, m.Timestamp[:]...)
	b = append(b, make([]byte, 2*sizeMAC)...)
	addMAC1(b, to)
	return b
}

// addMAC1 writes mac1 with wireguard-go's code.
func addMAC1(msg []byte, to key.Public) {
	var g device.CookieGenerator
	g.Init(device.NoisePublicKey(to))
	g.AddMacs(msg)
}

func newKey(tb testing.TB) key.Private {
	tb.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestOpenInitiation(t *testing.T) {
	us, them, third := newKey(t), newKey(t), newKey(t)
	msg := initiation(t, them, us.Public(), 7)
	o := newOpener(us)

	if Classify(msg) != KindInitiation || !o.mac1.check(msg) {
		t.Fatal("an initiation of wireguard-go's is refused")
	}
	if k, ok := o.static(msg); !ok || k != them.Public() {
		t.Errorf("static = %v, %v; want %v", k, ok, them.Public())
	}
	other := newOpener(third)
	if other.mac1.check(msg) {
		t.Error("mac1 fits another key")
	}
	if _, ok := other.static(msg); ok {
		t.Error("another key opens it")
	}
	for _, at := range []int{offEphemeral, offStatic, endStatic - 1} {
		bad := bytes.Clone(msg)
		bad[at] ^= 1
		if o.mac1.check(bad) {
			t.Errorf("mac1 does not notice a change of byte %d", at)
		}
		if k, ok := o.static(bad); ok {
			t.Errorf("static = %v although byte %d was changed", k, at)
		}
	}
}

func TestOpenInitiationLowOrder(t *testing.T) {
	us := newKey(t)
	msg := message(sizeInitiation, 1) // the ephemeral key is zero
	addMAC1(msg, us.Public())
	if _, ok := newOpener(us).static(msg); ok {
		t.Error("a key of low order is accepted")
	}
}

func FuzzInitiation(f *testing.F) {
	us, them := newKey(f), newKey(f)
	o := newOpener(us)
	good := initiation(f, them, us.Public(), 1)
	f.Add(good)
	f.Add(message(sizeInitiation, 1))
	f.Add(bytes.Repeat([]byte{0xFF}, sizeInitiation))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != sizeInitiation {
			return // Classify sees to that
		}
		k, ok := o.static(b)
		if !ok && !k.IsZero() {
			t.Fatal("a key and no success")
		}
		same := bytes.Equal(b[offEphemeral:endStatic], good[offEphemeral:endStatic])
		if ok != same {
			t.Fatalf("static says %v, and the message was made by us: %v", ok, same)
		}
		o.mac1.check(b)
	})
}
