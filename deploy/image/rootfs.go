package main

import (
	"bytes"
	"encoding/pem"
	"io/fs"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Who the program runs as. It is what others call nonroot.
const (
	nonroot = 65532
	user    = "65532:65532"
)

// binary is where the program is.
const binary = "usr/bin/corax"

// file is one entry of a layer.
type file struct {
	name    string // without leading slash; a folder ends with one
	mode    fs.FileMode
	owner   int // uid and gid
	content []byte
}

// system are the files that a program expects of any system.
func system() []file {
	return []file{
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, content: []byte(
			"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/var/lib/corax:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\nnonroot:x:65532:\n")},
		// Go's resolver reads it: hosts files come before DNS.
		{name: "etc/nsswitch.conf", mode: 0o644, content: []byte("hosts: files dns\n")},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: authorities()},
		{name: "run/", mode: 0o755},
		{name: "run/corax/", mode: 0o700, owner: nonroot},
		{name: "tmp/", mode: 0o777 | fs.ModeSticky},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		{name: "var/lib/corax/", mode: 0o700, owner: nonroot},
	}
}

// authorities returns the roots that Mozilla trusts, as one PEM file. Those that
// it trusts only under conditions are left out: the file cannot say them.
func authorities() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// Writing to a Buffer does not fail.
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return b.Bytes()
}
