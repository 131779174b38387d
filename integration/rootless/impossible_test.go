//go:build linux

package rootless_test

const (
	endsHere = "no: TCP ends in the agent, and with it"
	noRoutes = "no: it cannot hold back what nobody carries"
	itsTUN   = "no: the test is about a TUN"
	noHost   = "no: the test is about changes of the host, of which there are none"
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
		"tunnel TestKilledAgent":               endsHere,
		"tunnel TestStoppedAgent":              endsHere,
		"tunnel TestKilledWithBrokenFile":      noRoutes,
	},
	"userns TUN": {
		"tunnel TestSocketRefuses": "no: it needs a second user",
	},
}

// partOf says of which test only a part is run, by what follows its name for -test.run.
var partOf = map[string]string{
	// Of the 59 pairs, which take six minutes, those of unlike kinds.
	"nat TestGrid": "/^pair$/^(address-restricted|port-restricted|sequential|double|UDP_blocked|IPv6|two_LANs)",
}
