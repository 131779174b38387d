package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newAgentCommand() *cobra.Command {
	var (
		cfg  agentConfig
		file string
	)
	settings := agentSettings(&cfg, readSecret)
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of a node",
		Args:  cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	register(flags, settings)
	flags.StringVar(&file, "config", "", "the same settings as YAML `FILE`, for example nodeIP: 10.0.0.4; flags win")
	ignored := registerRaven(flags, settings)
	completeValues(cmd, settings)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := parseAgentConfig(&cfg, settings, file, os.Getenv, readBounded); err != nil {
			return &exitError{exitUsage, fmt.Errorf("agent: %w", mistakes{err}), "try: corax agent --help"}
		}
		log := newLogger(cmd.ErrOrStderr(), cfg.LogLevel, cfg.LogFormat)
		for _, u := range ignored() {
			log.Info("a flag of Raven's agent is ignored", "flag", u.flag, "why", u.why)
		}
		if err := runAgents(cmd.Context(), cfg, log); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		return nil
	})
	return cmd
}

// completeValues lets the shell complete the settings that are one of a few words.
func completeValues(cmd *cobra.Command, settings []*setting) {
	for _, s := range settings {
		if words := s.words(); s.flag != "" && len(words) > 1 {
			_ = cmd.RegisterFlagCompletionFunc(s.flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}

// logFormat is the form of log lines.
type logFormat string

// The forms of log lines.
const (
	logText logFormat = "text"
	logJSON logFormat = "json"
)

func newLogger(w io.Writer, level slog.Level, format logFormat) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == logJSON {
		options.ReplaceAttr = inWords
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// inWords has JSON say what text says: by itself it has the number of a value that has
// a name, such as a role.
func inWords(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case error, json.Marshaler, encoding.TextMarshaler:
	case fmt.Stringer:
		if a.Value.Kind() == slog.KindAny {
			a.Value = slog.StringValue(fmt.Sprint(v)) // which a nil pointer does not stop
		}
	}
	return a
}

// readBounded reads a file that an operator names: a wrong name must not fill the
// memory.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxConfig)
	}
	return data, err
}

// mistakes shows several errors as an indented list.
type mistakes struct{ error }

func (m mistakes) Error() string {
	text := m.error.Error()
	if !strings.Contains(text, "\n") {
		return text
	}
	return "settings:\n  - " + strings.ReplaceAll(text, "\n", "\n  - ")
}

func (m mistakes) Unwrap() error { return m.error }
