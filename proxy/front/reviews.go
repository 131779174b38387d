package front

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"corax/proxy"
)

const (
	// goodFor is how long a yes of the API server counts, badFor a no.
	goodFor = 30 * time.Second
	badFor  = 5 * time.Second
	// reviewWithin is how long the API server has, waiting for a turn included.
	reviewWithin = 10 * time.Second
	// maxReviews bounds what is asked at once, maxKept the kept answers of each kind
	// that say yes, and maxRefused those that say no: anybody can have as many of
	// these as he likes, and they push out no others.
	maxReviews = 32
	maxKept    = 4096
	maxRefused = 1024
)

// reviews asks an Auth and keeps the answers. Tokens themselves are not kept, only
// their hashes.
type reviews struct {
	auth  Auth
	turns *turns
	calls singleflight.Group

	mu      sync.Mutex
	users   kept[User]
	allowed kept[bool]
}

type hash [sha256.Size]byte

func newReviews(a Auth) *reviews {
	return &reviews{auth: a, turns: newTurns()}
}

// user returns whose a token is, for a caller at an address.
func (r *reviews) user(ctx context.Context, from netip.Addr, token string) (User, error) {
	key := hash(sha256.Sum256([]byte("token\x00" + token)))
	r.mu.Lock()
	a, ok := r.users.get(key, time.Now())
	r.mu.Unlock()
	if ok {
		return a.value, a.err
	}
	return ask(ctx, r, from, key, func(ctx context.Context) (User, error) {
		u, err := r.auth.Token(ctx, token)
		now := time.Now()
		var until time.Time
		switch {
		case err == nil:
			until = now.Add(goodFor)
			if exp, ok := expiry(token); ok && exp.Before(until) {
				until = exp
			}
		case errors.Is(err, ErrUnauthenticated):
			until = now.Add(badFor)
			err = proxy.Refuse(proxy.CodeUnauthenticated, "authentication: the token is not good, or has expired")
		default:
			return User{}, &proxy.Refusal{Code: proxy.CodeAuthFailed, Text: "authentication: the API server does not say whose the token is", Err: err}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.users.put(key, err == nil, answered[User]{u, err, until}, now)
		return u, err
	})
}

// may returns nil when the user is allowed to do it.
func (r *reviews) may(ctx context.Context, from netip.Addr, u User, a Access) error {
	key := accessKey(u, a)
	r.mu.Lock()
	k, ok := r.allowed.get(key, time.Now())
	r.mu.Unlock()
	if !ok {
		var err error
		k.value, err = ask(ctx, r, from, key, func(ctx context.Context) (bool, error) {
			yes, err := r.auth.Allowed(ctx, u, a)
			if err != nil {
				return false, &proxy.Refusal{Code: proxy.CodeAuthFailed, Text: "authorization: the API server does not say what the caller may", Err: err}
			}
			now := time.Now()
			until := now.Add(badFor)
			if yes {
				until = now.Add(goodFor)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.allowed.put(key, yes, answered[bool]{yes, nil, until}, now)
			return yes, nil
		})
		if err != nil {
			return err
		}
	}
	if !k.value {
		return proxy.Refuse(proxy.CodeForbidden, "authorization: "+quoted(u.Name)+" may not "+a.Verb+" nodes/"+a.Subresource+" of "+quoted(a.Node))
	}
	return nil
}

// ask calls once for all who want the same now, and for a bounded number at once.
// When the one whose call it is leaves, the next one calls.
func ask[T any](ctx context.Context, r *reviews, from netip.Addr, key hash, call func(context.Context) (T, error)) (T, error) {
	for {
		answer, err, _ := r.calls.Do(string(key[:]), func() (any, error) {
			within, cancel := context.WithTimeout(ctx, reviewWithin)
			defer cancel()
			back, ok := r.turns.wait(within, from)
			if !ok {
				if ctx.Err() != nil {
					return *new(T), errLeft
				}
				return *new(T), proxy.Refuse(proxy.CodeAuthFailed, "authentication: too many wait for the API server")
			}
			defer back()
			v, err := call(within)
			if err != nil && ctx.Err() != nil {
				err = errLeft
			}
			return v, err
		})
		if errors.Is(err, errLeft) {
			if ctx.Err() == nil {
				continue
			}
			err = &proxy.Refusal{Code: proxy.CodeAuthFailed, Text: "authentication: the caller left", Err: context.Cause(ctx)}
		}
		v, _ := answer.(T)
		return v, err
	}
}

// errLeft says that the caller who asked is gone.
var errLeft = errors.New("the caller left")

// answered is an answer and how long it counts.
type answered[T any] struct {
	value T
	err   error
	until time.Time
}

// kept are answers: those that say yes and those that say no, each of a bounded
// number. The zero value is ready.
type kept[T any] struct{ yes, no map[hash]answered[T] }

func (k *kept[T]) get(key hash, now time.Time) (answered[T], bool) {
	a, ok := k.yes[key]
	if !ok || !now.Before(a.until) {
		a, ok = k.no[key]
	}
	return a, ok && now.Before(a.until)
}

func (k *kept[T]) put(key hash, yes bool, a answered[T], now time.Time) {
	delete(k.yes, key)
	delete(k.no, key)
	if yes {
		k.yes = with(k.yes, maxKept, key, a, now)
	} else {
		k.no = with(k.no, maxRefused, key, a, now)
	}
}

// with adds an answer. It makes room by what has lapsed, and else by some entry: one
// that lacks costs a question.
func with[T any](m map[hash]answered[T], most int, key hash, a answered[T], now time.Time) map[hash]answered[T] {
	if m == nil {
		m = map[hash]answered[T]{}
	}
	if len(m) >= most {
		maps.DeleteFunc(m, func(_ hash, a answered[T]) bool { return !now.Before(a.until) })
		for old := range m {
			if len(m) < most {
				break
			}
			delete(m, old)
		}
	}
	m[key] = a
	return m
}

// accessKey hashes all of what an answer depends on, each part with its length.
func accessKey(u User, a Access) hash {
	h := sha256.New()
	add := func(parts ...string) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(parts)))
		for _, p := range parts {
			_ = binary.Write(h, binary.BigEndian, uint32(len(p)))
			_, _ = h.Write([]byte(p))
		}
	}
	add("access", u.Name, u.UID, a.Verb, a.Subresource, a.Node)
	add(u.Groups...)
	for _, k := range slices.Sorted(maps.Keys(u.Extra)) {
		add(k)
		add(u.Extra[k]...)
	}
	return hash(h.Sum(nil))
}

// expiry reads when a JSON web token expires, without looking at its signature: it
// only ever shortens how long an answer counts.
func expiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(body, &claims) != nil || claims.Exp < 1 || claims.Exp > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Exp), 0), true
}
