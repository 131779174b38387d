//go:build linux

package rootless_test

// impossible says, by way and test, why a test of another suite cannot pass.
var impossible = map[string]map[string]string{
	"netstack":   {},
	"userns TUN": {},
}
