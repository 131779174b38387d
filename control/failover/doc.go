// Package failover decides, on one listed endpoint of a domain, whether it takes
// over from active ones that died while nobody elects others: the API server is
// away, or the objects come from a directory.
//
//	pings ──► Machine.Step(now, Input) ──► *control.Claim, why
//
// Who is dead did not answer several pings in a row; a count, and not a time, so
// that an agent that was frozen itself finds nobody dead. The candidates wait for
// each other by their rank: first the standbys in the order of the Gateway object,
// then the active ones that are left. A claim has an epoch one higher than what it
// replaces; control.Plan judges it as it does those of others.
//
// Who is cut off from everybody claims nothing: its claim would be heard when it
// is back, and take the domain away from those who carry it well.
//
// A claim ends when the objects say something newer, when a better claim is heard,
// or, where somebody elects, when those that the objects name are back for a while.
//
// The package is pure: no I/O, no clock, no goroutines.
package failover
