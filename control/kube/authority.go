package kube

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// authority is the cluster's certificate authority, as the service account or the
// kubeconfig names it.
type authority struct {
	file string // wins over data, since it follows a rotation
	data []byte

	mu   sync.Mutex
	pool *x509.CertPool
	read time.Time // when file was changed that pool came from
}

// ClusterCA returns the certificate authorities of the cluster: that of the service
// account's ca.crt, or of the kubeconfig. Where kubelets' certificates are signed
// by the cluster, they are verified with these. A changed file is read again.
func (c *Client) ClusterCA() (*x509.CertPool, error) {
	pool, err := c.ca.get()
	if err != nil {
		return nil, fmt.Errorf("kube: the cluster's certificate authority: %w", err)
	}
	return pool, nil
}

func (a *authority) get() (*x509.CertPool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	data, changed := a.data, time.Time{}
	if a.file != "" {
		st, err := os.Stat(a.file)
		if err != nil {
			return nil, err
		}
		changed = st.ModTime()
	}
	if a.pool != nil && changed.Equal(a.read) {
		return a.pool, nil
	}
	if a.file != "" {
		var err error
		if data, err = os.ReadFile(a.file); err != nil {
			return nil, err
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("no certificate in it")
	}
	a.pool, a.read = pool, changed
	return pool, nil
}
