package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// maxConfig bounds the file of settings, in bytes.
const maxConfig = 1 << 20

// giveFile offers the settings of a YAML file. It is strict: an unknown key, a
// key given twice or a value of another shape is an error that names the line.
func giveFile(settings []*setting, name string, data []byte) error {
	if len(data) > maxConfig {
		return fmt.Errorf("%s: larger than %d bytes", name, maxConfig)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // empty, or only comments
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document", name)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: not a list of settings (name: value)", name, root.Line)
	}
	var errs []error
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d", name, k.Line)
		s := find(settings, k.Value, true)
		switch {
		case s == nil || k.Kind != yaml.ScalarNode:
			errs = append(errs, fmt.Errorf("%s: unknown setting %q; known: %s", at, k.Value, keys(settings)))
			continue
		case seen[s.key] != 0:
			errs = append(errs, fmt.Errorf("%s: %s is set in line %d already", at, s.key, seen[s.key]))
			continue
		}
		seen[s.key] = k.Line
		texts, err := scalars(v, s.list)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", at, s.key, err))
			continue
		}
		s.give(fromFile, at+": "+s.key, texts...)
	}
	return errors.Join(errs...)
}

// scalars returns the texts of one value. Aliases are refused: a few of them can
// stand for more than memory holds.
func scalars(v *yaml.Node, list bool) ([]string, error) {
	switch {
	case v.Kind == yaml.ScalarNode && v.Tag == "!!null":
		return nil, errors.New("no value")
	case v.Kind == yaml.ScalarNode:
		return []string{v.Value}, nil
	case v.Kind != yaml.SequenceNode || !list:
		return nil, errors.New("not a single value")
	}
	var texts []string
	for _, item := range v.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: not a single value", item.Line)
		}
		texts = append(texts, item.Value)
	}
	return texts, nil
}
