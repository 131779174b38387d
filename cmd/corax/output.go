package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// output is a form in which an answer of the agent is printed.
type output string

// The forms of an answer.
const (
	outputTable output = "table"
	outputWide  output = "wide"
	outputJSON  output = "json"
	outputYAML  output = "yaml"
)

// outputFlag adds --output with the forms that a command has; the first is the
// default. What it returns reads the flag.
func outputFlag(cmd *cobra.Command, forms ...output) func() (output, error) {
	names := make([]string, len(forms))
	for i, f := range forms {
		names[i] = string(f)
	}
	last := len(names) - 1
	form := cmd.Flags().StringP("output", "o", names[0], "`FORM`: "+strings.Join(names[:last], ", ")+" or "+names[last])
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return func() (out output, err error) {
		if err := oneOf(&out, forms...)(*form); err != nil {
			return "", &exitError{exitUsage, fmt.Errorf("%s: --output: %w", cmd.Name(), err), ""}
		}
		return out, nil
	}
}

// write prints doc as JSON or YAML, or what table returns for the other forms.
func (o output) write(w io.Writer, doc any, table func() string) error {
	switch o {
	case outputJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	case outputYAML:
		return writeYAML(w, doc)
	default:
		_, err := io.WriteString(w, table())
		return err
	}
}

// writeYAML writes the JSON form of v as YAML, so that both have the same keys in
// the same order.
func writeYAML(w io.Writer, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(doc, &node); err != nil { // JSON is YAML
		return err
	}
	blockStyle(&node)
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return err
	}
	_, err = w.Write(buf.Bytes())
	return err
}

// blockStyle takes JSON's braces and quotes away. Strings keep quotes where YAML
// would read them as something else: their tag says that they are strings.
func blockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}
