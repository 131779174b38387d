package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"corax/control"
)

func TestJSONLogSaysWords(t *testing.T) {
	var b bytes.Buffer
	newLogger(&b, slog.LevelInfo, logJSON).Info("changed", "role", control.RoleGateway, "took", time.Second,
		"err", errors.New("no way"), "node", netip.MustParseAddr("10.0.0.1"), "peers", 2, "proxy", (*url.URL)(nil), "where", slog.GroupValue(slog.Any("role", control.RoleNode)))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	line, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"err":"no way","level":"INFO","msg":"changed","node":"10.0.0.1","peers":2,"proxy":"\u003cnil\u003e","role":"gateway","took":1000000000,"where":{"role":"node"}}`
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}
