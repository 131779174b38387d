package hostnet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDeliver checks when events lead to calls, in milliseconds since the start.
func TestDeliver(t *testing.T) {
	every := func(from, to, step int) (at []int) {
		for i := from; i <= to; i += step {
			at = append(at, i)
		}
		return at
	}
	for _, tt := range []struct {
		name   string
		events []int
		fails  int // calls that fail at first
		want   []int
	}{
		{name: "none"},
		{name: "one", events: []int{10}, want: []int{260}},
		{name: "a burst", events: every(0, 500, 100), want: []int{750}},
		{name: "two", events: []int{0, 300}, want: []int{250, 550}},
		{name: "no end", events: every(0, 1950, 150), want: []int{1000, 2050}},
		{name: "a failure is tried again", events: []int{0}, fails: 2, want: []int{250, 1250, 2250}},
		{name: "or after the next event", events: []int{0, 300}, fails: 1, want: []int{250, 550}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEvents(250*time.Millisecond, nil)
				ctx, cancel := context.WithCancel(t.Context())
				start := time.Now()
				var got []int
				done := make(chan error)
				go func() {
					done <- e.deliver(ctx, func() bool {
						got = append(got, int(time.Since(start).Milliseconds()))
						return len(got) > tt.fails
					})
				}()
				for _, at := range tt.events {
					time.Sleep(time.Until(start.Add(time.Duration(at) * time.Millisecond)))
					e.signal()
				}
				time.Sleep(10 * time.Second)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}
