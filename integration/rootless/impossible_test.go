//go:build linux

package rootless_test

const (
	noPing    = "no: pods of such a node cannot ping other domains"
	endsHere  = "no: TCP ends in the agent, and with it"
	noRoutes  = "no: it cannot hold back what nobody carries"
	noSource  = "no: pods see an address of their host"
	noService = "no: kube-proxy's rules of the node do not lead into the agent"
	itsTUN    = "no: the test is about a TUN"
	itsUser   = "no: the test gives the agent files of root"
	noTools   = "no: the test runs another program on the edge, which needs a TUN"
	noHost    = "no: the test is about changes of the host, of which there are none"
)

// impossible says, by way and test, why a test of another suite cannot pass.
var impossible = map[string]map[string]string{
	"netstack": {
		"tunnel TestAllowList":                 noPing,
		"tunnel TestWhy":                       noPing,
		"tunnel TestLyingPeer":                 noPing,
		"tunnel TestTCPOverSmallLinks":         noPing,
		"nat TestHubFlood":                     noPing,
		"tunnel TestOuterPackets":              noPing,
		"tunnel TestDatagramTooBig":            noPing,
		"tunnel TestKilledThenWithoutTUN":      itsTUN,
		"tunnel TestNoTUN":                     itsTUN,
		"tunnel TestSameDomainTrafficStaysOut": itsTUN,
		"tunnel TestHostUntouched":             noHost,
		"tunnel TestFailedStart":               noHost,
		"tunnel TestRavenIsRespected":          noHost,
		"tunnel TestReach":                     noSource,
		"tunnel TestRavenNode":                 noSource,
		"tunnel TestKilledAgent":               endsHere,
		"tunnel TestStoppedAgent":              endsHere,
		"tunnel TestKilledWithBrokenFile":      noRoutes,
		"tunnel TestService":                   noService,
		"tunnel TestPlainWireGuard":            noTools,
		"tunnel TestKeyRotation":               itsUser,
		"tunnel TestFullDisk":                  itsUser,
		"tunnel TestSecretsStaySecret":         itsUser,
	},
	"userns TUN": {
		"tunnel TestSocketRefuses": "no: it needs a second user",
	},
}
