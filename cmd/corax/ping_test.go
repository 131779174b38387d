package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// An interrupt ends a ping as its count does.
func TestInterruptedPing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reply bool // one came before the interrupt
		want  string
	}{
		{"before the first answer", false, ""},
		{"later", true, "\nthe path stays relay via hub-gw: probing\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan struct{})
			f := &fakeAgent{ping: func(ctx context.Context, _ string, _ int, reply func(PingReply)) error {
				if tt.reply {
					reply(PingReply{Seq: 1, RTTMillis: 1, Path: Path{Kind: PathRelay, Via: []string{"hub-gw"}, Why: "probing"}})
				}
				close(asked)
				<-ctx.Done()
				return ctx.Err()
			}}
			socket, _ := startLocal(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, errs := make(pages, 10), &bytes.Buffer{}
			code := make(chan int)
			go func() { code <- run(ctx, []string{"ping", "edge-b", "--until-direct", "--socket", socket}, out, errs) }()
			<-asked
			if tt.reply {
				if line := out.next(t); !strings.HasPrefix(line, "answer from") {
					t.Errorf("first line: %s", line)
				}
			}
			cancel()
			if got := <-code; got != exitFailed || errs.Len() > 0 {
				t.Errorf("exit code %d, stderr %q", got, errs)
			}
			close(out)
			var rest strings.Builder
			for line := range out {
				rest.WriteString(line)
			}
			if !strings.HasSuffix(rest.String(), tt.want) || tt.want == "" && rest.Len() > 0 {
				t.Errorf("%q, want %q at the end", &rest, tt.want)
			}
		})
	}
}
