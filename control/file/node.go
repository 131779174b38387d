package file

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"corax/control/api/v1beta1"
)

// ignoredStatus are the fields of status that our controller writes for people
// and tools. Agents do not read them.
var ignoredStatus = []string{"status.conditions", "status.summary"}

var metaType = reflect.TypeFor[v1beta1.ObjectMeta]()

// mistake is something wrong at a place of a document.
type mistake struct {
	line           int
	field, message string
}

// maxReports bounds the mistakes of each kind that one document is told.
const maxReports = 32

// decoder fills a Gateway from the tree of its document.
type decoder struct {
	lines    map[string]int  // of each field seen
	seen     map[string]bool // fields that something was said about
	mistakes []mistake       // structural: they refuse the document
	bad      []mistake       // bad values
}

func newDecoder() *decoder {
	return &decoder{lines: map[string]int{}, seen: map[string]bool{}}
}

func (d *decoder) gateway(n *yaml.Node, g *v1beta1.Gateway) {
	d.value(n, reflect.ValueOf(g).Elem(), "")
}

func (d *decoder) mistake(line int, field, format string, args ...any) {
	d.add(&d.mistakes, mistake{line, field, fmt.Sprintf(format, args...)})
}

func (d *decoder) badValue(line int, field, format string, args ...any) {
	d.add(&d.bad, mistake{line, field, fmt.Sprintf(format, args...)})
}

func (d *decoder) add(to *[]mistake, m mistake) {
	d.seen[m.field] = true
	if len(*to) < maxReports {
		*to = append(*to, m)
	}
}

// line returns the line of a field, or of the nearest one around it.
func (d *decoder) line(field string, otherwise int) int {
	for field != "" {
		if n, ok := d.lines[field]; ok {
			return n
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return otherwise
}

// value fills v from n. null leaves v as it is.
func (d *decoder) value(n *yaml.Node, v reflect.Value, field string) {
	d.lines[field] = n.Line
	if n.Kind == yaml.AliasNode {
		d.mistake(n.Line, field, "aliases are not accepted")
		return
	}
	if isNull(n) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), field)
	case reflect.Struct:
		d.mapping(n, v, field)
	case reflect.Map:
		d.texts(n, v, field)
	case reflect.Slice:
		if !d.is(n, yaml.SequenceNode, "a list", field) {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", field, i))
		}
	default:
		d.scalar(n, v, field)
	}
}

func (d *decoder) is(n *yaml.Node, kind yaml.Kind, wanted, field string) bool {
	if n.Kind == kind {
		return true
	}
	d.mistake(n.Line, field, "%s is wanted, not %s", wanted, kindName(n))
	return false
}

// fields calls f for each key of a mapping, once.
func (d *decoder) fields(n *yaml.Node, field string, f func(key, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			d.mistake(k.Line, field, "the name of a field must be a text, not %s", kindName(k))
			continue
		}
		if line, ok := seen[k.Value]; ok {
			d.mistake(k.Line, join(field, k.Value), "already given in line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		f(k, n.Content[i+1])
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, field string) {
	if !d.is(n, yaml.MappingNode, "an object", field) {
		return
	}
	d.fields(n, field, func(k, value *yaml.Node) {
		path := join(field, k.Value)
		f, ok := fieldNamed(v, k.Value)
		switch {
		case ok:
			d.value(value, f, path)
		case v.Type() == metaType, slices.Contains(ignoredStatus, path):
		default:
			d.mistake(k.Line, path, "unknown field")
		}
	})
}

// texts fills a map of texts: labels, annotations, config.
func (d *decoder) texts(n *yaml.Node, v reflect.Value, field string) {
	if !d.is(n, yaml.MappingNode, "an object", field) {
		return
	}
	m := make(map[string]string, len(n.Content)/2)
	d.fields(n, field, func(k, value *yaml.Node) {
		path := fmt.Sprintf("%s[%q]", field, clip(k.Value))
		s := reflect.New(reflect.TypeFor[string]()).Elem()
		d.value(value, s, path)
		if !d.seen[path] {
			m[k.Value] = s.String()
		}
	})
	v.Set(reflect.ValueOf(m))
}

// scalar fills a text, number or switch. A number of the wrong type becomes -1,
// which no field of a Gateway allows, so that it counts as absent and not as 0.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.ScalarNode {
		d.mistake(n.Line, field, "%s is wanted, not %s", scalarName(v.Kind()), kindName(n))
		return
	}
	tag := n.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag == "!!str" || tag == "!!timestamp" {
			v.SetString(n.Value)
			return
		}
	case reflect.Bool:
		// A quoted "true" is reported, and meant: read as false it would turn a
		// node behind a NAT into a hub.
		b, err := strconv.ParseBool(n.Value)
		v.SetBool(err == nil && b)
		if err == nil && tag == "!!bool" {
			return
		}
	default:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err == nil && tag == "!!int" && !v.OverflowInt(i) {
			v.SetInt(i)
			return
		}
		v.SetInt(-1)
	}
	d.badValue(n.Line, field, "%s is wanted, not %q", scalarName(v.Kind()), clip(n.Value))
}

// fieldNamed returns the field of a struct with that YAML name.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for f, value := range v.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if options == "inline" {
			if inner, ok := fieldNamed(value, name); ok {
				return inner, true
			}
			continue
		}
		if tag == name {
			return value, true
		}
	}
	return reflect.Value{}, false
}

func join(field, name string) string {
	if field == "" {
		return clip(name)
	}
	return field + "." + clip(name)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return fmt.Sprintf("%q", clip(n.Value))
	}
}

func scalarName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}
