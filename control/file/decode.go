package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"corax/control"
	"corax/control/api/v1beta1"
)

// Limits of one file.
const (
	// MaxSize is the largest file that is read, in bytes.
	MaxSize = 4 << 20
	// MaxObjects is the largest number of Gateways in one file.
	MaxObjects = 4096
	// maxDocuments bounds the documents of a file, empty ones included.
	maxDocuments = 2 * MaxObjects
	// maxProblems bounds the structural mistakes that are told of a file.
	maxProblems = 128
)

// Decode reads the Gateways of one file, whose name is used in problems. It
// returns all that can be used, in the order of the file, and says what cannot.
func Decode(name string, data []byte) ([]v1beta1.Gateway, []control.Problem) {
	f := decodeFile(name, data)
	var gws []v1beta1.Gateway
	problems := f.problems
	for _, o := range f.objects {
		gws = append(gws, o.gateway)
		problems = append(problems, o.problems...)
	}
	return gws, control.SortProblems(problems)
}

// object is one Gateway of a file, with the bad values in it.
type object struct {
	gateway  v1beta1.Gateway
	source   string // file:line
	problems []control.Problem
}

// contents is what one version of a file says.
type contents struct {
	objects []object
	// problems are the structural mistakes; each refused something.
	problems []control.Problem
}

func decodeFile(name string, data []byte) contents {
	f := &fileDecoder{name: name, lineOf: map[string]int{}}
	if len(data) > MaxSize {
		f.refuse(0, "", "larger than %d bytes", MaxSize)
		return f.contents
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for documents := 0; ; documents++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.refuseSyntax(err)
			break
		}
		if documents == maxDocuments {
			f.refuse(doc.Line, "", "more than %d documents", maxDocuments)
			break
		}
		if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
			f.document(doc.Content[0], "")
		}
	}
	if len(f.objects) == 0 && len(f.problems) == 0 {
		f.refuse(0, "", "no Gateway in it; remove the file to remove its Gateways")
	}
	return f.contents
}

type fileDecoder struct {
	contents
	name   string
	lineOf map[string]int // of the Gateways so far
}

// document reads one object: a Gateway or a list of them. Within a list, parent
// is the kind of the list.
func (f *fileDecoder) document(n *yaml.Node, parent string) {
	if n.Kind != yaml.MappingNode {
		f.refuse(n.Line, "", "an object is wanted, not %s", kindName(n))
		return
	}
	apiVersion, kind := text(n, "apiVersion"), text(n, "kind")
	if parent == v1beta1.ListKind && apiVersion == "" && kind == "" {
		// Items of an API server's list carry no type.
		apiVersion, kind = v1beta1.APIVersion, v1beta1.Kind
	}
	switch {
	case apiVersion == v1beta1.APIVersion && kind == v1beta1.Kind:
		f.gateway(n)
	case parent != "":
		f.refuse(n.Line, "", "a list of Gateways holds kind %q of %q", clip(kind), clip(apiVersion))
	case apiVersion == v1beta1.APIVersion && kind == v1beta1.ListKind, apiVersion == "v1" && kind == "List":
		f.list(n, kind)
	case kind == "":
		f.refuse(n.Line, "kind", "required")
	case kind != v1beta1.Kind && kind != v1beta1.ListKind:
		f.refuse(n.Line, "kind", "%q is not %s", clip(kind), v1beta1.Kind)
	default:
		f.refuse(n.Line, "apiVersion", "%q is not %s", clip(apiVersion), v1beta1.APIVersion)
	}
}

func (f *fileDecoder) list(n *yaml.Node, kind string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch k.Value {
		case "apiVersion", "kind", "metadata":
		case "items":
			if isNull(v) {
				continue
			}
			if v.Kind != yaml.SequenceNode {
				f.refuse(v.Line, "items", "a list is wanted, not %s", kindName(v))
				continue
			}
			for _, item := range v.Content {
				f.document(item, kind)
			}
		default:
			f.refuse(k.Line, clip(k.Value), "unknown field")
		}
	}
}

func (f *fileDecoder) gateway(n *yaml.Node) {
	if len(f.objects) == MaxObjects {
		f.refuse(n.Line, "", "more than %d Gateways", MaxObjects)
		return
	}
	d := newDecoder()
	o := object{source: f.source(n.Line)}
	d.gateway(n, &o.gateway)
	name := o.gateway.Metadata.Name
	if err := v1beta1.CheckName(name); err != nil {
		// Without a name there is no object to apply the rest of.
		if !d.seen["metadata.name"] {
			d.mistake(d.line("metadata.name", n.Line), "metadata.name", "%v", err)
		}
		d.mistakes = append(d.mistakes, d.bad...)
	}
	for _, m := range d.mistakes {
		f.refuse(m.line, m.field, "%s", m.message)
	}
	if len(d.mistakes) > 0 {
		return
	}
	if line, ok := f.lineOf[name]; ok {
		f.refuse(n.Line, "metadata.name", "gateway %s is already defined in line %d", name, line)
		return
	}
	f.lineOf[name] = n.Line
	for _, e := range o.gateway.Validate() {
		if !d.seen[e.Field] {
			d.badValue(d.line(e.Field, n.Line), e.Field, "%s", e.Message)
		}
	}
	for _, b := range d.bad {
		o.problems = append(o.problems, control.Problem{
			Object: control.GatewayObject(name), Field: b.field, Message: b.message, Source: f.source(b.line),
		})
	}
	f.objects = append(f.objects, o)
}

func (f *fileDecoder) source(line int) string { return fmt.Sprintf("%s:%d", f.name, max(line, 1)) }

func (f *fileDecoder) refuse(line int, field, format string, args ...any) {
	if len(f.problems) == maxProblems {
		return // the file is refused in part anyway; mend these first
	}
	f.problems = append(f.problems, control.Problem{
		Object: "file/" + f.name, Field: field, Message: fmt.Sprintf(format, args...), Source: f.source(line),
	})
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// refuseSyntax reports an error of the YAML parser, which gives its line only
// as text.
func (f *fileDecoder) refuseSyntax(err error) {
	message := err.Error()
	line := 0
	if m := syntaxLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	f.refuse(line, "", "not YAML: %s", clip(strings.ReplaceAll(message, "\n", " ")))
}

// text returns the value of a field that is a plain text.
func text(n *yaml.Node, field string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == field && n.Content[i+1].Kind == yaml.ScalarNode {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// clip bounds what a message repeats of a file.
func clip(s string) string { return v1beta1.Clip(s, 100) }
