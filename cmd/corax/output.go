package main

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"go.yaml.in/yaml/v3"
)

// output is a form in which status is printed.
type output string

// The forms of status.
const (
	outputTable output = "table"
	outputWide  output = "wide"
	outputJSON  output = "json"
	outputYAML  output = "yaml"
)

// write prints s. now is what ages are counted from.
func (o output) write(w io.Writer, s Status, now time.Time) error {
	switch o {
	case outputJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	case outputYAML:
		return writeYAML(w, s)
	default:
		return writeTable(w, s, o == outputWide, now)
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
