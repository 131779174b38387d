package proxy

import (
	"cmp"
	"errors"
	"net/http"
)

// Code says why a request was not served. The number is what travels between
// edge and channel, so it never changes its meaning.
type Code uint8

// The codes. The first block may come from either end, the second from fronts
// only.
const (
	CodeNone        Code = 0  // served
	CodeMalformed   Code = 1  // not a request, or one of another version
	CodeSlow        Code = 2  // the request did not come in time
	CodeUnknownNode Code = 3  // no node of that name takes part, or not behind this edge
	CodePort        Code = 4  // the port is not one that may be dialled
	CodeCaller      Code = 5  // who asks may not
	CodeLimit       Code = 6  // too many streams
	CodeDial        Code = 7  // the node did not take the connection
	CodeNoPath      Code = 8  // no gateway node of the domain could be reached
	CodeOff         Code = 9  // proxy mode is off, or the agent stops
	CodeMemory      Code = 10 // the streams that are open may hold all the memory there is for them

	CodeUnauthenticated Code = 32 // no, or bad, credentials
	CodeForbidden       Code = 33 // the credentials do not suffice
	CodeAuthFailed      Code = 34 // the API server did not answer about them
	CodeBackend         Code = 35 // the node's certificate or answer is not good
)

// describe returns a code's name and what HTTP says; an empty name for none of ours.
func (c Code) describe() (name string, status int) {
	switch c {
	case CodeNone:
		return "none", http.StatusOK
	case CodeMalformed:
		return "malformed", http.StatusBadRequest
	case CodeSlow:
		return "slow", http.StatusRequestTimeout
	case CodeUnknownNode:
		return "unknown_node", http.StatusNotFound
	case CodePort:
		return "port", http.StatusForbidden
	case CodeCaller:
		return "caller", http.StatusForbidden
	case CodeLimit:
		return "limit", http.StatusServiceUnavailable
	case CodeDial:
		return "dial", http.StatusBadGateway
	case CodeNoPath:
		return "no_path", http.StatusGatewayTimeout
	case CodeOff:
		return "off", http.StatusServiceUnavailable
	case CodeMemory:
		return "memory", http.StatusServiceUnavailable
	case CodeUnauthenticated:
		return "unauthenticated", http.StatusUnauthorized
	case CodeForbidden:
		return "forbidden", http.StatusForbidden
	case CodeAuthFailed:
		return "auth_failed", http.StatusServiceUnavailable
	case CodeBackend:
		return "backend", http.StatusBadGateway
	default:
		return "", http.StatusBadGateway
	}
}

// Known reports whether the code is one of ours.
func (c Code) Known() bool {
	name, _ := c.describe()
	return name != ""
}

// Codes returns every code but [CodeNone], by number.
func Codes() []Code {
	var all []Code
	for c := range Code(codeBound) {
		if c != CodeNone && c.Known() {
			all = append(all, c)
		}
	}
	return all
}

// codeBound is above every code.
const codeBound = 36

// String returns the name that counters and audit lines have.
func (c Code) String() string {
	name, _ := c.describe()
	return cmp.Or(name, "other")
}

// HTTPStatus returns the status of an answer to a request that was refused so.
func (c Code) HTTPStatus() int {
	_, status := c.describe()
	return status
}

// Again reports whether another gateway node of the domain may serve what this
// one refused so: the refusal is about the gateway node, not about the request.
func (c Code) Again() bool {
	return c == CodeLimit || c == CodeMemory || c == CodeOff || c == CodeNoPath || c == CodeUnknownNode || c == CodeCaller
}

// Refusal is the error of a request that is not served. Text is one line for who
// asked: the stage and the cause, with no content of the stream.
type Refusal struct {
	Code Code
	Text string
	// Err is the cause; nil when it lies with another process, or there is none.
	Err error
}

// Error returns Text.
func (r *Refusal) Error() string { return r.Text }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// Refuse makes a refusal without a cause.
func Refuse(c Code, text string) *Refusal { return &Refusal{Code: c, Text: text} }

// CodeOf returns the code of an error: that of the [Refusal] in it, [CodeNone] for
// nil, and [CodeNoPath] for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return CodeNone
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		if r == nil {
			return CodeNone
		}
		return r.Code
	}
	return CodeNoPath
}
