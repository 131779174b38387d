package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestProblemsOfAState(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	all := State{Server: "https://api", Since: at, Err: "refused", SettingsErr: "a", CacheErr: "b", WriteErr: "c", LeaseErr: "d"}
	connected := all
	connected.Connected, connected.Err = true, ""
	recalled := State{Server: "https://api", Since: at, Err: "refused", Recalled: at.Add(-time.Hour)}
	for _, tt := range []struct {
		name  string
		state State
		want  []string // a part of each
	}{
		{"nothing tried yet", State{Server: "https://api"}, nil},
		{"all is well", State{Connected: true, Since: at}, nil},
		{"away", all, []string{"cluster: the API server at https://api is away since 2026-03-01 12:00:00: refused", "cluster: what is known cannot be kept on disk: b"}},
		{"connected", connected, []string{"disk: b", "raven-cfg cannot be read, what it said last counts: a", "entry cannot be written: c", "Lease cannot be renewed: d"}},
		{"started without it", recalled, []string{"refused; what is in force was kept on disk at 2026-03-01 11:00:00"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.state.Problems()
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("got %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestReasons(t *testing.T) {
	for want, err := range map[string]error{
		"ok":        nil,
		"conflict":  apierrors.NewConflict(gatewayResource, "g", nil),
		"invalid":   apierrors.NewInvalid(schema.GroupKind{}, "g", nil),
		"throttled": apierrors.NewTooManyRequests("x", 1),
		"denied":    apierrors.NewUnauthorized("x"),
		"not_found": apierrors.NewNotFound(gatewayResource, "g"),
		"timeout":   fmt.Errorf("x: %w", context.DeadlineExceeded),
		"other":     errors.New("x"),
	} {
		if got := reason(err); got != want {
			t.Errorf("reason(%v) = %q, want %q", err, got, want)
		}
	}
}
