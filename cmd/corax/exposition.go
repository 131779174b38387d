package main

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// expositionType is the Content-Type of the text format of Prometheus.
const expositionType = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

// metricKind is what Prometheus calls the type of a metric.
type metricKind string

const (
	kindCounter metricKind = "counter"
	kindGauge   metricKind = "gauge"
	kindSummary metricKind = "summary"
)

// exposition is what one scrape gets, by the name of the metric.
type exposition map[string]*metricFamily

// metricFamily are the series of one metric, by their labels.
type metricFamily struct {
	help   string
	kind   metricKind
	series map[string]float64
}

// add sets the value of a series of ours. Labels are pairs of name and value, by name. Of two
// alike the first stays: twins must not cost the scrape.
func (e exposition) add(name, help string, kind metricKind, v float64, labels ...string) {
	e.put("corax_"+name, help, kind, "", v, labels)
}

func (e exposition) gauge(name, help string, v float64, labels ...string) {
	e.put("corax_"+name, help, kindGauge, "", v, labels)
}

// summary adds a count and a sum.
func (e exposition) summary(name, help string, count uint64, sum float64, labels ...string) {
	e.put("corax_"+name, help, kindSummary, "_sum", sum, labels)
	e.put("corax_"+name, help, kindSummary, "_count", float64(count), labels)
}

// put is add with the whole name of the metric, and what the series appends to it.
func (e exposition) put(name, help string, kind metricKind, suffix string, v float64, labels []string) {
	f := e[name]
	if f == nil {
		f = &metricFamily{help: help, kind: kind, series: map[string]float64{}}
		e[name] = f
	}
	id := suffix + labelText(labels)
	if _, twin := f.series[id]; !twin {
		f.series[id] = v
	}
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func labelText(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteString([]string{"{", ","}[min(i, 1)])
		b.WriteString(labels[i] + `="`)
		_, _ = labelEscapes.WriteString(&b, strings.ToValidUTF8(labels[i+1], "?"))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// text returns the text format, in the order of names and labels.
func (e exposition) text() []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e)) {
		f := e[name]
		b.WriteString("# HELP " + name + " " + f.help + "\n# TYPE " + name + " " + string(f.kind) + "\n")
		for _, id := range slices.Sorted(maps.Keys(f.series)) {
			b.WriteString(name + id + " " + metricValue(f.series[id]) + "\n")
		}
	}
	return b.Bytes()
}

func metricValue(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	default:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
}
