package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// printable replaces what could steer a terminal: names and reasons come from
// other nodes. Line ends stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine is printable without line ends, for table cells.
func oneLine(s string) string { return strings.ReplaceAll(printable(s), "\n", " ") }

// dash stands for what is not known.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
}

// bytesText writes a number of bytes with three digits and a binary unit.
func bytesText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	// 1023.95 would be written as 1024.0, so the next unit starts below it.
	for v >= 1023.95 && unit < len("KMGTPE")-1 {
		v, unit = v/1024, unit+1
	}
	digits := 0
	if v < 9.995 {
		digits = 2
	} else if v < 99.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, v, "KMGTPE"[unit])
}

// ageText writes how long ago t was, with its largest one or two units.
func ageText(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Second: // or a clock that was set back
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds ago", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm ago", d/time.Hour, d%time.Hour/time.Minute)
	default:
		const day = 24 * time.Hour
		return fmt.Sprintf("%dd%02dh ago", d/day, d%day/time.Hour)
	}
}

// millisText writes a round trip; 0 means that none was measured.
func millisText(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 9.995:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 99.95:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}

// percentText writes a share; a small loss is not rounded to none.
func percentText(ratio float64) string {
	switch p := ratio * 100; {
	case p <= 0:
		return "0 %"
	case p < 1:
		return "<1 %"
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// clockText writes a moment in the time zone of now.
func clockText(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(now.Location()).Format("2006-01-02 15:04:05.000")
}

// sinceText writes a moment and how long ago it was.
func sinceText(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return clockText(now, t) + ", " + ageText(now, t)
}

// untilText writes how long it is until t, in whole seconds.
func untilText(now, t time.Time) string {
	switch d := t.Sub(now).Round(time.Second); {
	case t.IsZero():
		return "-"
	case d <= 0:
		return "now"
	default:
		return "in " + d.String()
	}
}
