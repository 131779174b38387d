// Package stage is the frame of the demos: a program with flags around a lab, which
// leaves nothing behind however it ends.
package stage
