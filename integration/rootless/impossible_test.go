//go:build linux

package rootless_test

const (
	itsTUN = "no: the test is about a TUN"
	noHost = "no: the test is about changes of the host, of which there are none"
)

// impossible says, by way and test, why a test of another suite cannot pass.
var impossible = map[string]map[string]string{
	"netstack": {
		"tunnel TestKilledThenWithoutTUN":      itsTUN,
		"tunnel TestNoTUN":                     itsTUN,
		"tunnel TestSameDomainTrafficStaysOut": itsTUN,
		"tunnel TestHostUntouched":             noHost,
		"tunnel TestFailedStart":               noHost,
		"tunnel TestRavenIsRespected":          noHost,
	},
	"userns TUN": {
		"tunnel TestSocketRefuses": "no: it needs a second user",
	},
}
