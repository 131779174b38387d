package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// fetched is what a plain port answered.
type fetched struct {
	err    error // why there is no answer
	status int
	text   string // its first line
}

// fromFront reports whether it is the front that answers, not the node.
func (f fetched) fromFront() bool { return strings.HasPrefix(f.text, "corax: ") }

// scrape asks a front's plain port for the metrics of a node, as a scraper does.
func scrape(ctx context.Context, address, host, token string) fetched {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return fetched{err: err}
	}
	req.Host = host
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// No proxy of the environment: scrapers in a cluster have none.
	c := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(req)
	if err != nil {
		return fetched{err: err}
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxHeard))
	line, _, _ := strings.Cut(string(b), "\n")
	return fetched{status: resp.StatusCode, text: strings.TrimSpace(line)}
}

// plainPort is where a front takes plain HTTP, as can be told from here.
func (d *doctor) plainPort(s *Status, seen surveyed) string {
	if d.question.HTTP != "" {
		return d.question.HTTP
	}
	if isFront(s) {
		for _, l := range s.Proxy.Listeners {
			if l.Front == "http" && l.Error == "" {
				return l.Address
			}
		}
	}
	if seen.Service.IsValid() && len(seen.Plain) > 0 {
		return netip.AddrPortFrom(seen.Service, seen.Plain[0]).String()
	}
	return ""
}

// examineHTTP asks the plain port first as nobody and then with the token, if there is
// one.
func (d *doctor) examineHTTP(ctx context.Context, r *DoctorReport, s *Status, seen surveyed) {
	at := d.plainPort(s, seen)
	if at == "" {
		r.add("http", checkSkip, "where a front takes plain HTTP cannot be told from here: the Service has no such port", "", "list a port in proxyHTTPPort of a Gateway, or give --http HOST:PORT: port 10282 of a front")
		return
	}
	name := cmp.Or(seen.Node, d.question.Node)
	host := net.JoinHostPort(name, strconv.Itoa(int(d.question.Port)))
	f, _ := stepped(ctx, 3*stepTimeout, func(ctx context.Context) (fetched, error) { return d.fetch(ctx, at, host, ""), nil })
	found := fmt.Sprintf("http://%s answers %d to a request without a token for %s", at, f.status, host)
	switch {
	case f.err != nil:
		r.add("http", checkFail, "no answer from http://"+at, f.err.Error(),
			"a front must be ready there (without a cluster that knows callers it listens on loopback only), and kube-proxy must run here where it is the Service's address")
		return
	case f.status == http.StatusUnauthorized && f.fromFront():
		r.add("http", checkOK, found+", as it should", "", "")
	case f.fromFront():
		r.add("http", checkFail, found, f.text, refusalMeans(f.status))
		return
	case isLoopback(at):
		r.add("http", checkOK, found+": on loopback, without a cluster, nobody is asked who he is", "", "")
	default:
		r.add("http", checkFail, found, "it is not a front that answers, or one that asks nobody who he is", "see what listens there: corax status on that node")
		return
	}
	if d.question.Token == "" {
		r.add("token", checkSkip, "not asked with a token", "", "give --token-file, for example /var/run/secrets/kubernetes.io/serviceaccount/token of the scraper")
		return
	}
	f, _ = stepped(ctx, 3*stepTimeout, func(ctx context.Context) (fetched, error) { return d.fetch(ctx, at, host, d.question.Token), nil })
	verdict, cause, fix := tokenMeans(f)
	r.add("token", verdict, fmt.Sprintf("http://%s answers %d to the token for %s/metrics", at, f.status, host), cause, fix)
}

// tokenMeans judges what a token got.
func tokenMeans(f fetched) (v verdict, cause, fix string) {
	const scraper = "its account needs get on nodes/metrics: kubectl auth can-i get nodes --subresource=metrics --as system:serviceaccount:NAMESPACE:NAME"
	switch {
	case f.err != nil:
		return checkFail, f.err.Error(), "corax proxy on the front says what became of the request"
	case f.status == http.StatusUnauthorized && f.fromFront():
		return checkFail, f.text, "the token has expired, or is meant for somebody else: --proxy-audience of the fronts (chart: proxy.audiences)"
	case f.status == http.StatusForbidden && f.fromFront():
		return checkFail, f.text, scraper
	case f.fromFront():
		return checkFail, f.text, refusalMeans(f.status)
	case f.status == http.StatusUnauthorized:
		return checkFail, "the node does not know the token: " + f.text, "the kubelet needs authentication.webhook.enabled: true"
	case f.status == http.StatusForbidden:
		return checkFail, "the node refuses it: " + f.text, scraper
	case f.status >= http.StatusInternalServerError:
		return checkFail, "the node itself: " + f.text, "see the log of what listens there"
	}
	return checkOK, "", ""
}

// isLoopback reports whether an address is one of this host alone.
func isLoopback(at string) bool {
	a, err := netip.ParseAddrPort(at)
	return err == nil && a.Addr().IsLoopback()
}
