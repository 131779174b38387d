package main

import (
	"testing"
	"time"
)

func TestBytesText(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 10239: "10.0 KiB", 10240: "10.0 KiB",
		102399: "100 KiB", 1<<20 - 1: "1.00 MiB", 1 << 20: "1.00 MiB", 123_456_789: "118 MiB", 1 << 40: "1.00 TiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestAgeText(t *testing.T) {
	now := sampleTime()
	for ago, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", 999 * time.Millisecond: "now", time.Second: "1s ago", 59*time.Second + 999*time.Millisecond: "59s ago",
		time.Minute: "1m00s ago", 75 * time.Second: "1m15s ago", time.Hour: "1h00m ago", 24*time.Hour - 1: "23h59m ago",
		24 * time.Hour: "1d00h ago", 400 * 24 * time.Hour: "400d00h ago",
	} {
		if got := ageText(now, now.Add(-ago)); got != want {
			t.Errorf("age %v = %q, want %q", ago, got, want)
		}
	}
	if got := ageText(now, time.Time{}); got != "-" {
		t.Errorf("no time = %q", got)
	}
}

func TestMillisText(t *testing.T) {
	for ms, want := range map[float64]string{
		0: "-", 0.004: "0.00 ms", 0.412: "0.41 ms", 9.994: "9.99 ms", 9.996: "10.0 ms", 12.345: "12.3 ms", 99.96: "100 ms", 1234.5: "1234 ms",
	} {
		if got := millisText(ms); got != want {
			t.Errorf("millisText(%v) = %q, want %q", ms, got, want)
		}
	}
}

func TestPercentText(t *testing.T) {
	for ratio, want := range map[float64]string{0: "0 %", 0.004: "<1 %", 0.01: "1 %", 0.25: "25 %", 1: "100 %"} {
		if got := percentText(ratio); got != want {
			t.Errorf("percentText(%v) = %q, want %q", ratio, got, want)
		}
	}
}

// What other nodes say must not steer the terminal.
func TestPrintable(t *testing.T) {
	const text, want = "a\x1b[31m\tb\r\nc\u202e\xff é", "a?[31m?b?\nc?\ufffd é"
	if got := printable(text); got != want {
		t.Errorf("printable = %q, want %q", got, want)
	}
	if got := oneLine("a\nb"); got != "a b" {
		t.Errorf("oneLine = %q", got)
	}
}

func TestClockText(t *testing.T) {
	at := sampleTime()
	now := at.Add(75 * time.Second).In(time.FixedZone("", 2*60*60))
	if got, want := clockText(now, at), "2026-03-04 14:00:00.000"; got != want {
		t.Errorf("clockText = %q, want %q", got, want)
	}
	if got, want := sinceText(now, at), "2026-03-04 14:00:00.000, 1m15s ago"; got != want {
		t.Errorf("sinceText = %q, want %q", got, want)
	}
	if clockText(now, time.Time{}) != "-" || sinceText(now, time.Time{}) != "-" {
		t.Error("no time is not -")
	}
}

func TestUntilText(t *testing.T) {
	now := sampleTime()
	for ahead, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", 400 * time.Millisecond: "now", 1600 * time.Millisecond: "in 2s", 90 * time.Second: "in 1m30s",
	} {
		if got := untilText(now, now.Add(ahead)); got != want {
			t.Errorf("in %v = %q, want %q", ahead, got, want)
		}
	}
	if got := untilText(now, time.Time{}); got != "-" {
		t.Errorf("no time = %q", got)
	}
}
