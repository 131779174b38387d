package main

import (
	"errors"
	"testing"
)

func TestErrChange(t *testing.T) {
	var c errChange
	for i, step := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("a"), true},
		{errors.New("a"), false},
		{errors.New("b"), true},
		{nil, true},
		{nil, false},
		{errors.New("b"), true},
	} {
		if got := c.is(step.err); got != step.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
}
