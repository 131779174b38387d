package kube

import (
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"corax/control/api/v1beta1"
)

// gatewayWith is a Gateway of another node's proxy entry and the given ones.
func gatewayWith(entries ...string) string {
	all := append([]string{`{"nodeName":"other","type":"tunnel","config":{"publicKey":"K0"}}`}, entries...)
	return `{"metadata":{"name":"g"},"spec":{"later":1,"endpoints":[` + strings.Join(all, ",") + `]}}`
}

func TestPatch(t *testing.T) {
	all := Entry{PublicKey: "K1", NextPublicKey: "K2", NATType: v1beta1.NATSymmetric, PublicIP: "192.0.2.1", PublicPort: 4501, TLSPort: 443}
	tests := []struct {
		name  string
		entry string // of the node, before
		say   Entry
		want  string // the entry after
		ops   string // the whole patch; empty: not compared
	}{
		{
			name:  "a bare entry",
			entry: `{"nodeName":"me","type":"tunnel"}`,
			say:   Entry{PublicKey: "K1"},
			want:  `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`,
			ops: `[{"op":"test","path":"/spec/endpoints/1/nodeName","value":"me"},{"op":"test","path":"/spec/endpoints/1/type","value":"tunnel"},` +
				`{"op":"test","path":"/spec/endpoints/1/config","value":null},{"op":"add","path":"/spec/endpoints/1/config","value":{}},` +
				`{"op":"test","path":"/spec/endpoints/1/config/publicKey","value":null},{"op":"add","path":"/spec/endpoints/1/config/publicKey","value":"K1"}]`,
		},
		{
			name:  "everything",
			entry: `{"nodeName":"me","type":"tunnel","port":4500,"underNAT":false}`,
			say:   all,
			want: `{"nodeName":"me","type":"tunnel","port":4500,"underNAT":false,"natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,` +
				`"config":{"publicKey":"K1","corax.io/next-public-key":"K2","corax.io/tls-port":"443"}}`,
		},
		{
			name: "everything again",
			entry: `{"nodeName":"me","type":"tunnel","natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,` +
				`"config":{"publicKey":"K1","corax.io/next-public-key":"K2","corax.io/tls-port":"443"}}`,
			say:  all,
			want: `{"nodeName":"me","type":"tunnel","natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,"config":{"publicKey":"K1","corax.io/next-public-key":"K2","corax.io/tls-port":"443"}}`,
			ops:  `null`,
		},
		{
			name:  "explicit emptiness, as other controllers write it",
			entry: `{"nodeName":"me","type":"tunnel","underNAT":false,"natType":"","publicIP":"","publicPort":0,"config":null}`,
			say:   all,
			want: `{"nodeName":"me","type":"tunnel","underNAT":false,"natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,` +
				`"config":{"publicKey":"K1","corax.io/next-public-key":"K2","corax.io/tls-port":"443"}}`,
		},
		{
			name:  "what is unknown stays",
			entry: `{"nodeName":"me","type":"tunnel","later":[1],"config":{"enable-l3-tunnel":"true"}}`,
			say:   Entry{PublicKey: "K1"},
			want:  `{"nodeName":"me","type":"tunnel","later":[1],"config":{"enable-l3-tunnel":"true","publicKey":"K1"}}`,
		},
		{
			name:  "what is empty is left alone",
			entry: `{"nodeName":"me","type":"tunnel","natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,"config":{"publicKey":"K1","corax.io/tls-port":"443"}}`,
			say:   Entry{PublicKey: "K1"},
			want:  `{"nodeName":"me","type":"tunnel","natType":"Symmetric NAT","publicIP":"192.0.2.1","publicPort":4501,"config":{"publicKey":"K1","corax.io/tls-port":"443"}}`,
			ops:   `null`,
		},
		{
			name:  "the next key has become the key",
			entry: `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1","corax.io/next-public-key":"K2"}}`,
			say:   Entry{PublicKey: "K2"},
			want:  `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K2"}}`,
		},
		{
			name:  "an empty next key goes",
			entry: `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1","corax.io/next-public-key":""}}`,
			say:   Entry{PublicKey: "K1"},
			want:  `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`,
		},
		{
			name:  "the default port is not written",
			entry: `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`,
			say:   Entry{PublicKey: "K1", TLSPort: v1beta1.PortTLSFallback},
			want:  `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`,
			ops:   `null`,
		},
		{
			name:  "the default port replaces another",
			entry: `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1","corax.io/tls-port":"443"}}`,
			say:   Entry{PublicKey: "K1", TLSPort: v1beta1.PortTLSFallback},
			want:  `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1","corax.io/tls-port":"10280"}}`,
		},
		{
			name:  "another type is not ours to judge",
			entry: `{"nodeName":"me","type":"mesh"}`,
			say:   all,
			want:  `{"nodeName":"me","type":"mesh"}`,
			ops:   `null`,
		},
		{
			name:  "nothing to say",
			entry: `{"nodeName":"me","type":"tunnel"}`,
			want:  `{"nodeName":"me","type":"tunnel"}`,
			ops:   `null`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := gatewayWith(tt.entry)
			body := patchOf(t, before, tt.say)
			if tt.ops != "" && body != tt.ops {
				t.Errorf("got  %s\nwant %s", body, tt.ops)
			}
			if after := applied(t, before, body); !jsonpatch.Equal([]byte(after), []byte(gatewayWith(tt.want))) {
				t.Errorf("got  %s\nwant %s", after, gatewayWith(tt.want))
			}
			if again := patchOf(t, applied(t, before, body), tt.say); again != "null" {
				t.Errorf("a second time there is still something to write: %s", again)
			}
		})
	}
}

func TestPatchOfBothEntries(t *testing.T) {
	before := gatewayWith(`{"nodeName":"me","type":"proxy"}`, `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K1"}}`, `{"nodeName":"me","type":"proxy"}`)
	body := patchOf(t, before, Entry{PublicKey: "K1", NATType: v1beta1.NATFullCone})
	want := gatewayWith(
		`{"nodeName":"me","type":"proxy","natType":"Full cone NAT","config":{"publicKey":"K1"}}`,
		`{"nodeName":"me","type":"tunnel","natType":"Full cone NAT","config":{"publicKey":"K1"}}`,
		`{"nodeName":"me","type":"proxy"}`)
	if after := applied(t, before, body); !jsonpatch.Equal([]byte(after), []byte(want)) {
		t.Errorf("got  %s\nwant %s", after, want)
	}
}

// TestPatchBehindBalancer leaves to the controller how a balancer is reached.
func TestPatchBehindBalancer(t *testing.T) {
	exposed := func(entry string) string {
		return strings.Replace(gatewayWith(entry), `"later":1`, `"exposeType":"LoadBalancer"`, 1)
	}
	before := exposed(`{"nodeName":"me","type":"tunnel","publicIP":"198.51.100.1","publicPort":4502,"config":{"corax.io/tls-port":"4502"}}`)
	body := patchOf(t, before, Entry{PublicKey: "K1", PublicIP: "192.0.2.1", PublicPort: 4500, TLSPort: v1beta1.PortTLSFallback})
	want := exposed(`{"nodeName":"me","type":"tunnel","publicIP":"198.51.100.1","publicPort":4502,"config":{"publicKey":"K1","corax.io/tls-port":"4502"}}`)
	if after := applied(t, before, body); !jsonpatch.Equal([]byte(after), []byte(want)) {
		t.Errorf("got  %s\nwant %s", after, want)
	}
}

// TestPatchIsRefused applies a patch to an object that somebody changed in
// between.
func TestPatchIsRefused(t *testing.T) {
	read := gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":"K0"}}`)
	body := patchOf(t, read, Entry{PublicKey: "K1", NATType: v1beta1.NATSymmetric})
	for name, now := range map[string]string{
		"the entry moved":         gatewayWith(`{"nodeName":"new","type":"tunnel"}`, `{"nodeName":"me","type":"tunnel","config":{"publicKey":"K0"}}`),
		"the entry is gone":       gatewayWith(),
		"the type changed":        gatewayWith(`{"nodeName":"me","type":"proxy","config":{"publicKey":"K0"}}`),
		"the key changed":         gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":"K9"}}`),
		"the NAT type was set":    gatewayWith(`{"nodeName":"me","type":"tunnel","natType":"Undefined","config":{"publicKey":"K0"}}`),
		"the config went":         gatewayWith(`{"nodeName":"me","type":"tunnel"}`),
		"there are no endpoints":  `{"spec":{}}`,
		"the key is no text here": gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":5}}`),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := jsonpatch.DecodePatch([]byte(body))
			if err != nil {
				t.Fatal(err)
			}
			if after, err := p.Apply([]byte(now)); err == nil {
				t.Errorf("applied: %s", after)
			}
		})
	}
	// Another field, or another node, is no reason to refuse it.
	for name, now := range map[string]string{
		"an explicit underNAT": gatewayWith(`{"nodeName":"me","type":"tunnel","underNAT":false,"config":{"publicKey":"K0"}}`),
		"another key":          gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":"K0","x":"y"}}`),
		"another entry":        strings.Replace(gatewayWith(`{"nodeName":"me","type":"tunnel","config":{"publicKey":"K0"}}`), `"K0"`, `"K7"`, 1),
	} {
		t.Run(name, func(t *testing.T) { applied(t, now, body) })
	}
}

func patchOf(t *testing.T, gateway string, e Entry) string {
	t.Helper()
	var d document
	if err := json.Unmarshal([]byte(gateway), &d); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(patch(d, "me", e, nil))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func applied(t *testing.T, gateway, body string) string {
	t.Helper()
	if body == "null" {
		return gateway
	}
	p, err := jsonpatch.DecodePatch([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	after, err := p.Apply([]byte(gateway))
	if err != nil {
		t.Fatalf("apply %s to %s: %v", body, gateway, err)
	}
	return string(after)
}

// FuzzPatch applies patches to Gateways of any form: nothing but the node's own
// entries may change, and afterwards there is nothing left to write.
func FuzzPatch(f *testing.F) {
	f.Add(gatewayWith(`{"nodeName":"me","type":"tunnel","config":null}`), "K1", "", "Symmetric NAT", 4500)
	f.Add(gatewayWith(`{"nodeName":"me","type":"proxy","publicPort":1.5}`, `{"nodeName":"me","type":"tunnel","config":{"publicKey":7}}`), "K", "N", "", 443)
	f.Add(`{"spec":{"endpoints":[null,{},{"nodeName":"me","type":"tunnel","config":[]}]}}`, "a/b~c", "", "x", -1)
	f.Fuzz(func(t *testing.T, before, key, next, nat string, port int) {
		var d document
		if json.Unmarshal([]byte(before), &d) != nil {
			return
		}
		e := Entry{PublicKey: strings.ToValidUTF8(key, "?"), NextPublicKey: strings.ToValidUTF8(next, "?"), NATType: strings.ToValidUTF8(nat, "?"), PublicPort: port}
		ops := patch(d, "me", e, nil)
		for _, op := range ops {
			parts := strings.Split(op.Path, "/")
			i := 0
			if err := json.Unmarshal([]byte(parts[3]), &i); err != nil || d.Spec.Endpoints[i]["nodeName"] != "me" {
				t.Fatalf("%v touches another entry of %s", op, before)
			}
		}
		body, err := json.Marshal(ops)
		if err != nil {
			t.Fatal(err)
		}
		p, err := jsonpatch.DecodePatch(body)
		if err != nil || len(ops) == 0 {
			return
		}
		after, err := p.Apply([]byte(before))
		if err != nil {
			return // a config that is no object is refused
		}
		var again document
		if err := json.Unmarshal(after, &again); err != nil {
			t.Fatal(err)
		}
		if left := patch(again, "me", e, nil); left != nil {
			t.Fatalf("%s became %s, and %v is left to write", before, after, left)
		}
	})
}
