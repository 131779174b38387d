package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// setting is one thing that an operator can set: by flag, in the file, or by the
// environment. Texts are kept until all sources have spoken, so that one run
// shows every mistake.
type setting struct {
	flag  string // without "--"; empty: only in the file
	key   string // in the file; empty: only by flag
	env   string // environment variable; empty: none
	def   string // what it is when nobody says otherwise
	arg   string // placeholder in the help text; "bool": --flag alone means true
	usage string
	list  bool // may be given several times
	must  bool // has to be given by flag, file or environment
	parse func(text string) error

	texts  []string
	rank   int    // of the source that gave texts
	source string // its name in errors
}

// Sources by rising rank: the higher wins.
const (
	fromDefault = iota
	fromEnv
	fromFile
	fromRaven // a flag of Raven's agent with the same meaning
	fromFlag
)

// give notes the texts of one source. A stronger source replaces a weaker one.
func (s *setting) give(rank int, source string, texts ...string) {
	switch {
	case rank < s.rank:
	case rank > s.rank || !s.list:
		s.texts, s.source, s.rank = texts, source, rank
	default:
		s.texts = append(s.texts, texts...)
	}
}

// resolve parses what the strongest source gave.
func (s *setting) resolve() error {
	switch {
	case s.rank > fromDefault:
	case s.def != "":
		return s.parse(s.def)
	case s.must:
		return fmt.Errorf("--%s is not set, and neither is $%s", s.flag, s.env)
	default:
		return nil
	}
	var errs []error
	for _, text := range s.texts {
		if err := s.parse(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.source, err))
		}
	}
	return errors.Join(errs...)
}

// flagValue is a setting as pflag sees it. It refuses no text: that comes later,
// together with all other mistakes.
type flagValue struct{ s *setting }

var _ pflag.Value = flagValue{}

// Set notes the text.
func (v flagValue) Set(text string) error {
	v.s.give(fromFlag, "--"+v.s.flag, text)
	return nil
}

// Type is the placeholder in help texts.
func (v flagValue) Type() string { return v.s.arg }

// String returns the default, which is what help texts show.
func (v flagValue) String() string {
	if v.s == nil { // pflag makes a zero value to compare with
		return ""
	}
	return v.s.def
}

// register adds a flag for every setting that has one.
func register(flags *pflag.FlagSet, settings []*setting) {
	for _, s := range settings {
		if s.flag == "" {
			continue
		}
		f := flags.VarPF(flagValue{s}, s.flag, "", s.usage)
		if s.arg == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// find returns the setting that is called so by flag or, with byKey, in the file.
func find(settings []*setting, name string, byKey bool) *setting {
	i := slices.IndexFunc(settings, func(s *setting) bool {
		return name != "" && (byKey && s.key == name || !byKey && s.flag == name)
	})
	if i < 0 {
		return nil
	}
	return settings[i]
}

// keys lists what the file may hold, for the error that names an unknown key.
func keys(settings []*setting) string {
	var names []string
	for _, s := range settings {
		if s.key != "" {
			names = append(names, s.key)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// words returns the texts that s accepts when they are few, else one element.
func (s *setting) words() []string { return strings.Split(s.arg, "|") }
