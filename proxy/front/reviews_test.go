package front

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy"
)

// jwt makes a token that says when it expires.
func jwt(exp time.Time) string {
	body := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp.Unix()))
	return "e30." + body + ".sig"
}

func TestExpiry(t *testing.T) {
	when := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		token string
		want  time.Time
		ok    bool
	}{
		{jwt(when), when, true},
		{"opaque", time.Time{}, false},
		{"a.b.c", time.Time{}, false},
		{"a." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":"soon"}`)) + ".c", time.Time{}, false},
		{"a." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + ".c", time.Time{}, false},
		{"a." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1e300}`)) + ".c", time.Time{}, false},
	} {
		if got, ok := expiry(c.token); !got.Equal(c.want) || ok != c.ok {
			t.Errorf("%s: %v, %v", c.token, got, ok)
		}
	}
}

// scripted is an Auth that counts, and answers as it is told.
type scripted struct {
	tokens, accesses atomic.Int32
	mu               sync.Mutex
	err              error
	allow            bool
	hold             func(context.Context)
}

func (s *scripted) now() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allow, s.err
}

func (s *scripted) Token(ctx context.Context, token string) (User, error) {
	s.tokens.Add(1)
	if s.hold != nil {
		s.hold(ctx)
	}
	if err := ctx.Err(); err != nil {
		return User{}, err
	}
	_, err := s.now()
	return User{Name: token}, err
}

func (s *scripted) Allowed(context.Context, User, Access) (bool, error) {
	s.accesses.Add(1)
	return s.now()
}

// TestReviewsKept has steps on a clock of its own: what is asked again, and when.
func TestReviewsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{allow: true}
		r := newReviews(s)
		began := time.Now()
		a := Access{"get", "metrics", "edge1"}
		away := errors.New("connection refused")
		for i, c := range []struct {
			now   time.Duration
			token string
			err   error
			allow bool
			code  proxy.Code // of the token
			may   proxy.Code
			asked [2]int32 // so far: tokens, accesses
		}{
			{0, "t", nil, true, 0, 0, [2]int32{1, 1}},
			{1 * time.Second, "t", away, true, 0, 0, [2]int32{1, 1}},                                        // a yes lives on while the API server is away
			{29 * time.Second, "t", ErrUnauthenticated, false, 0, 0, [2]int32{1, 1}},                        // and while it changed
			{31 * time.Second, "t", away, true, proxy.CodeAuthFailed, proxy.CodeAuthFailed, [2]int32{2, 2}}, // but not for ever
			{31 * time.Second, "t", away, true, proxy.CodeAuthFailed, proxy.CodeAuthFailed, [2]int32{3, 3}}, // what is not known is not kept
			{32 * time.Second, "t", ErrUnauthenticated, false, proxy.CodeUnauthenticated, proxy.CodeAuthFailed, [2]int32{4, 4}},
			{36 * time.Second, "t", nil, true, proxy.CodeUnauthenticated, 0, [2]int32{4, 5}}, // a no is kept for 5 s
			{38 * time.Second, "t", nil, false, 0, 0, [2]int32{5, 5}},
			{67 * time.Second, "t", nil, false, 0, proxy.CodeForbidden, [2]int32{5, 6}},
			{71 * time.Second, "t", nil, true, 0, proxy.CodeForbidden, [2]int32{6, 6}},
			{73 * time.Second, "t", nil, true, 0, 0, [2]int32{6, 7}},
		} {
			time.Sleep(c.now - time.Since(began))
			s.mu.Lock()
			s.err, s.allow = c.err, c.allow
			s.mu.Unlock()
			_, err := r.user(t.Context(), here, c.token)
			may := r.may(t.Context(), here, User{Name: "t"}, a)
			if proxy.CodeOf(err) != c.code || proxy.CodeOf(may) != c.may || s.tokens.Load() != c.asked[0] || s.accesses.Load() != c.asked[1] {
				t.Errorf("step %d: %v, %v, asked %d and %d", i, err, may, s.tokens.Load(), s.accesses.Load())
			}
		}
		// A token that expires soon does not outlive itself.
		s.err = nil
		began = time.Now()
		short := jwt(began.Add(10 * time.Second))
		before := s.tokens.Load()
		for _, now := range []time.Duration{0, 8 * time.Second, 11 * time.Second} {
			time.Sleep(now - time.Since(began))
			_, _ = r.user(t.Context(), here, short)
		}
		if n := s.tokens.Load() - before; n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestReviewsShared shows that one question is asked once at a time, and that the
// others are not lost with the one who asked.
func TestReviewsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{hold: func(ctx context.Context) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}}
		r := newReviews(s)
		leaver, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.user(leaver, here, "t"); proxy.CodeOf(err) != proxy.CodeAuthFailed {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if u, err := r.user(t.Context(), here, "t"); u.Name != "t" || err != nil {
					t.Errorf("who stayed: %v, %v", u, err)
				}
			})
		}
		synctest.Wait()
		leave()
		wg.Wait()
		if n := s.tokens.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestReviewsBounded shows how many are asked at once, how long others wait, and how
// many answers are kept.
func TestReviewsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{hold: func(ctx context.Context) { <-ctx.Done() }}
		r := newReviews(s)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range maxReviews + 5 {
			wg.Go(func() {
				if _, err := r.user(t.Context(), from(i), fmt.Sprint(i)); proxy.CodeOf(err) != proxy.CodeAuthFailed {
					t.Errorf("error %v", err)
				}
			})
		}
		synctest.Wait()
		if n := s.tokens.Load(); n != maxReviews {
			t.Errorf("%d at once", n)
		}
		wg.Wait()
		if took := time.Since(began); took > reviewWithin {
			t.Errorf("took %v", took)
		}
		s.hold = nil
		for i := range maxKept + 100 {
			_, _ = r.user(t.Context(), here, fmt.Sprint("k", i))
		}
		if n := len(r.users.yes); n != maxKept {
			t.Errorf("%d kept", n)
		}
		if n := len(r.turns.by); n != 0 {
			t.Errorf("%d sources are left", n)
		}
	})
}

// TestReviewsJunk has one address ask about tokens that are no good, more than
// anything has room for, at an API server that takes its time: others are neither
// delayed, nor asked for again.
func TestReviewsJunk(t *testing.T) {
	const good = 300
	for _, flood := range []struct {
		name string
		from func(i int) netip.Addr
	}{
		{"one address", func(int) netip.Addr { return here }},
		{"one /64", func(i int) netip.Addr {
			a := netip.MustParseAddr("2001:db8::").As16()
			binary.BigEndian.PutUint32(a[12:], uint32(i))
			return netip.AddrFrom16(a)
		}},
	} {
		t.Run(flood.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{allow: true}
				r := newReviews(s)
				for i := range good {
					_, _ = r.user(t.Context(), from(i), fmt.Sprint("good", i))
				}
				asked := s.tokens.Load()
				s.mu.Lock()
				s.err = ErrUnauthenticated
				s.mu.Unlock()
				s.hold = func(ctx context.Context) {
					select {
					case <-time.After(5 * time.Second):
					case <-ctx.Done():
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range 500 {
					wg.Go(func() { _, _ = r.user(ctx, flood.from(i), fmt.Sprint("junk", i)) })
				}
				synctest.Wait()
				if n := s.tokens.Load() - asked; n != maxTurns {
					t.Errorf("%d are asked about at once", n)
				}
				began := time.Now()
				for i := range good {
					if u, err := r.user(t.Context(), from(i), fmt.Sprint("good", i)); err != nil || u.Name == "" {
						t.Fatal(err)
					}
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("those who are known waited %v", took)
				}
				began = time.Now()
				if _, err := r.user(t.Context(), from(1), "new"); proxy.CodeOf(err) != proxy.CodeUnauthenticated {
					t.Error(err)
				}
				if took := time.Since(began); took != 5*time.Second {
					t.Errorf("who is new waited %v", took)
				}
				cancel()
				wg.Wait()
				s.hold = nil
				for i := range maxRefused + 100 {
					_, _ = r.user(t.Context(), flood.from(i), fmt.Sprint("more", i))
				}
				if yes, no := len(r.users.yes), len(r.users.no); yes != good || no > maxRefused {
					t.Errorf("%d good answers and %d others are kept", yes, no)
				}
			})
		})
	}
}

// here is the address of a caller, from those of others.
var here = netip.MustParseAddr("2001:db8::1")

func from(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// TestAccessKey shows that what is to be told apart has another key, also where
// parts could run into each other.
func TestAccessKey(t *testing.T) {
	seen := map[hash]int{}
	for i, c := range []struct {
		u User
		a Access
	}{
		{User{Name: "a"}, Access{"get", "metrics", "n"}},
		{User{Name: "b"}, Access{"get", "metrics", "n"}},
		{User{Name: "a", UID: "1"}, Access{"get", "metrics", "n"}},
		{User{Name: "a1"}, Access{"get", "metrics", "n"}},
		{User{Name: "a"}, Access{"get", "proxy", "n"}},
		{User{Name: "a"}, Access{"create", "metrics", "n"}},
		{User{Name: "a"}, Access{"get", "metrics", "m"}},
		{User{Name: "a", Groups: []string{"x", "y"}}, Access{"get", "metrics", "n"}},
		{User{Name: "a", Groups: []string{"xy"}}, Access{"get", "metrics", "n"}},
		{User{Name: "a", Groups: []string{"x"}, Extra: map[string][]string{"y": nil}}, Access{"get", "metrics", "n"}},
		{User{Name: "a", Extra: map[string][]string{"x": {"y"}}}, Access{"get", "metrics", "n"}},
		{User{Name: "a", Extra: map[string][]string{"x": nil, "y": nil}}, Access{"get", "metrics", "n"}},
	} {
		k := accessKey(c.u, c.a)
		if j, twice := seen[k]; twice {
			t.Errorf("%d and %d have one key", j, i)
		}
		seen[k] = i
	}
}
