// Package splice joins two connections: what one sends the other gets, unseen.
//
// The end of one direction is passed on as such (half-close), and the other
// direction goes on. When an end breaks, or the context ends, both are broken off,
// with a reset where the connection can: a stream that was cut must not look like
// one that has ended. An end that has said all and is gone takes nothing any more (a
// kubelet, when kubectl pings): the other one learns it by a reset, as it would without
// us, but not before it has got the last byte, for which it has five minutes. An end that
// takes nothing holds up its own stream alone: each stream has buffers of its own, and
// reads no more than it can pass on. A source that knows how is looked after meanwhile
// (Hold), so that its other end does not give up.
//
// A direction at rest holds a small buffer; a large one comes from a pool while
// bytes flow, and goes back within a tenth of a second after the last.
package splice
