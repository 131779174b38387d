package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// pemFiles is something made of PEM files, made anew when one of them changes:
// certificates are renewed beside us. While the new ones are no good, the last good
// ones count. The nil pemFiles has no problem. Its methods may be called from any
// goroutine.
type pemFiles[T any] struct {
	paths []string
	parse func(files [][]byte) (T, error)

	mu     sync.Mutex
	stamps []time.Time
	last   T
	have   bool
	err    error // of the last look
}

// newPool reads certificate authorities.
func newPool(path string) *pemFiles[*x509.CertPool] {
	return &pemFiles[*x509.CertPool]{paths: []string{path}, parse: func(files [][]byte) (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(files[0]) {
			return nil, fmt.Errorf("%s: no certificate in it", path)
		}
		return pool, nil
	}}
}

// newPair reads a certificate and its key.
func newPair(cert, key string) *pemFiles[*tls.Certificate] {
	return &pemFiles[*tls.Certificate]{paths: []string{cert, key}, parse: func(files [][]byte) (*tls.Certificate, error) {
		c, err := tls.X509KeyPair(files[0], files[1])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", cert, key, err)
		}
		return &c, nil
	}}
}

// get returns the newest that was good, or why there is none.
func (p *pemFiles[T]) get() (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look()
	if p.have {
		return p.last, nil
	}
	return p.last, p.err
}

// value is get without the reason.
func (p *pemFiles[T]) value() T {
	v, _ := p.get()
	return v
}

// problem returns what is wrong with the files, even while older ones count.
func (p *pemFiles[T]) problem() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look()
	return p.err
}

// look reads the files when one has changed, or when they were no good. It needs
// the lock.
func (p *pemFiles[T]) look() {
	stamps := make([]time.Time, len(p.paths))
	for i, path := range p.paths {
		st, err := os.Stat(path)
		if err != nil {
			p.err = err
			return
		}
		stamps[i] = st.ModTime()
	}
	if p.err == nil && p.have && equalTimes(stamps, p.stamps) {
		return
	}
	files := make([][]byte, len(p.paths))
	for i, path := range p.paths {
		b, err := readBounded(path)
		if err != nil {
			p.err = err
			return
		}
		files[i] = b
	}
	v, err := p.parse(files)
	if p.err = err; err == nil {
		p.last, p.have, p.stamps = v, true, stamps
	}
}

func equalTimes(a, b []time.Time) bool {
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}
