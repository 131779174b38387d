package stream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxProxyAnswer bounds what a proxy may say before the tunnel, in bytes.
const maxProxyAnswer = 16 << 10

// connectProxy opens a tunnel to cfg.Addr with HTTP CONNECT (RFC 9110 section
// 9.3.6).
func connectProxy(ctx context.Context, cfg DialConfig, proxy *url.URL) (net.Conn, error) {
	addr, err := proxyAddr(proxy)
	if err != nil {
		return nil, err
	}
	c, err := cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Host, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	tunnel := c
	if proxy.Scheme == "https" { // a proxy has a name and a certificate, as the web has
		tunnel = tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if err := askProxy(tunnel, proxy.User, cfg.Addr); err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("proxy %s: %w", proxy.Host, err)
	}
	if !stop() {
		_ = c.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Host, ctx.Err())
	}
	return tunnel, nil
}

func proxyAddr(proxy *url.URL) (string, error) {
	port := proxy.Port()
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return "", fmt.Errorf("a proxy of type %q is not supported: http or https", proxy.Scheme)
	case proxy.Hostname() == "":
		return "", errors.New("the proxy has no host")
	case port == "" && proxy.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	return net.JoinHostPort(proxy.Hostname(), port), nil
}

// askProxy asks for a tunnel to addr and reads the answer.
func askProxy(rw io.ReadWriter, user *url.Userinfo, addr string) error {
	request := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(rw, request+"\r\n"); err != nil {
		return err
	}
	return readProxyAnswer(rw)
}

// readProxyAnswer reads an HTTP response and nothing behind it: in TLS we speak
// first, so a proxy that goes on is none.
func readProxyAnswer(r io.Reader) error {
	b := bufio.NewReader(io.LimitReader(r, maxProxyAnswer))
	answer, err := http.ReadResponse(b, &http.Request{Method: http.MethodConnect})
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("no whole answer to CONNECT")
	}
	if err != nil {
		return fmt.Errorf("answer to CONNECT: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	switch {
	case answer.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("wants a user and a password, or refuses ours: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return fmt.Errorf("refuses CONNECT: %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	case b.Buffered() > 0:
		return errors.New("speaks behind its answer to CONNECT")
	}
	return nil
}
