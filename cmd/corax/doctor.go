package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// doctorQuestion is what the doctor is asked.
type doctorQuestion struct {
	Node       string
	Port       uint16
	Kubeconfig string
	Hosts      string // a hosts file that is asked before anybody else
	Connect    connectVia
	HTTP       string // a front's plain port; empty: as can be told
	Token      string // of a scraper; empty: none
}

// newDoctorCommand makes the command.
func newDoctorCommand() *cobra.Command {
	q := doctorQuestion{}
	var portText, tokenFile string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check how a node is reached by its name, from here",
		Long: `Check every step by which an API server, metrics-server or Prometheus that runs where
this is started reaches a node by name: the objects (with --kubeconfig), the name, the
Service, the front, its plain HTTP port, and, on a front, the path, the edge and the
node. With --connect the node is asked for by HTTP CONNECT, as an API server with an
EgressSelectorConfiguration does, and not by name. Each step that fails has its cause and
what mends it.

Run it on a node of the control plane to check what its API server would see, and on a
front to check the way on. Without --node only this node's own part is checked.

Exit codes: 0 no step failed, 1 one did, 3 wrong usage.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&q.Node, "node", "", "`NAME` of the node, or its Hostname address")
	cmd.Flags().StringVar(&portText, "port", "10250", "`PORT` of the node")
	cmd.Flags().StringVar(&q.Kubeconfig, "kubeconfig", "", "`FILE` of somebody who may read nodes, gateways, and kube-system's ConfigMaps, Services and EndpointSlices (default: in a pod, that of the pod)")
	cmd.Flags().StringVar(&q.Hosts, "hosts", "", "hosts `FILE` that whoever asks has as /etc/hosts, as an API server in a pod: /var/lib/corax/state/hosts")
	cmd.Flags().StringVar(&q.Connect.URL, "connect", "", "`URL` of a front's HTTP CONNECT: unix:/PATH, or https://HOST:PORT as in the API server's configuration")
	cmd.Flags().StringVar(&q.Connect.Cert, "connect-cert", "", "client certificate for it, PEM `FILE`")
	cmd.Flags().StringVar(&q.Connect.Key, "connect-key", "", "its private key, PEM `FILE`")
	cmd.Flags().StringVar(&q.Connect.CA, "connect-ca", "", "authorities of the front's certificate, PEM `FILE` (default: those of this host)")
	cmd.Flags().StringVar(&q.HTTP, "http", "", "`HOST:PORT` of a front's plain port (default: this node's own, else by the Service)")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` with a scraper's token, which the front and the node are asked with")
	form := outputFlag(cmd, outputTable, outputJSON, outputYAML)
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		out, err := form()
		if err != nil {
			return err
		}
		if err := port(&q.Port)(portText); err != nil {
			return &exitError{exitUsage, fmt.Errorf("doctor: --port: %w", err), ""}
		}
		if err := q.complete(tokenFile); err != nil {
			return &exitError{exitUsage, fmt.Errorf("doctor: %w", err), ""}
		}
		c := newClient(*socket)
		defer c.Close()
		d := doctor{
			question: q, agent: c, resolve: withHosts(q.Hosts, net.DefaultResolver.LookupHost), knock: knock, survey: survey,
			connect: connectThrough, fetch: scrape,
			inCluster: os.Getenv("KUBERNETES_SERVICE_HOST") != "",
		}
		report := d.examine(cmd.Context())
		if err := writeReport(cmd.OutOrStdout(), out, report); err != nil {
			return fmt.Errorf("doctor: %w", err)
		}
		if report.failed() {
			return &exitError{code: exitFailed}
		}
		return nil
	})
	return cmd
}

// complete checks what was asked, and reads the token.
func (q *doctorQuestion) complete(tokenFile string) error {
	if err := q.Connect.parse(); err != nil {
		return err
	}
	if q.HTTP != "" {
		if _, _, err := net.SplitHostPort(q.HTTP); err != nil {
			return fmt.Errorf("--http: %w", err)
		}
	}
	if q.Node == "" && (q.Connect.URL != "" || q.HTTP != "" || tokenFile != "") {
		return errors.New("--connect, --http and --token-file need --node")
	}
	if tokenFile == "" {
		return nil
	}
	text, err := readBounded(tokenFile)
	if err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	if q.Token = strings.TrimSpace(string(text)); q.Token == "" || strings.ContainsAny(q.Token, " \r\n") {
		return fmt.Errorf("--token-file: %s does not hold one token", tokenFile)
	}
	return nil
}

// verdict is what became of a check.
type verdict string

// The verdicts.
const (
	checkOK   verdict = "ok"
	checkFail verdict = "fail"
	checkWarn verdict = "warn" // it works, and something is not as it should be
	checkSkip verdict = "skip" // it cannot be told from here
)

// DoctorReport is what the doctor found: `corax doctor -o json`. Its JSON keys are
// stable.
type DoctorReport struct {
	Node   string        `json:"node"`
	Port   uint16        `json:"port"`
	Checks []DoctorCheck `json:"checks"`
}

// DoctorCheck is one step.
type DoctorCheck struct {
	Step    string  `json:"step"` // agent, objects, name, service, front, socket, tls, connect, kubelet, http, token, path, edge or node
	Verdict verdict `json:"verdict"`
	Found   string  `json:"found"` // what is so, or what failed
	Cause   string  `json:"cause"` // empty unless it failed, or warns
	Fix     string  `json:"fix"`
}

func (r *DoctorReport) add(step string, v verdict, found, cause, fix string) {
	r.Checks = append(r.Checks, DoctorCheck{step, v, found, cause, fix})
}

func (r *DoctorReport) failed() bool {
	for _, c := range r.Checks {
		if c.Verdict == checkFail {
			return true
		}
	}
	return false
}

func writeReport(w io.Writer, out output, r DoctorReport) error {
	return out.write(w, r, func() string {
		var b strings.Builder
		for _, c := range r.Checks {
			fmt.Fprintf(&b, "%-4s  %-8s %s\n", c.Verdict, c.Step, dash(c.Found))
			for _, line := range []struct{ title, text string }{{"cause", c.Cause}, {"fix", c.Fix}} {
				if line.text != "" {
					fmt.Fprintf(&b, "      %-8s %s\n", line.title+":", oneLine(line.text))
				}
			}
		}
		return b.String()
	})
}

// doctor examines; its funcs are how it looks at the world.
type doctor struct {
	question  doctorQuestion
	inCluster bool // this is a pod, which may ask with its own rights
	agent     interface {
		Status(ctx context.Context) (Status, error)
		Probe(ctx context.Context, node string, port uint16) (ProxyProbe, error)
	}
	resolve func(ctx context.Context, host string) ([]string, error)
	knock   func(ctx context.Context, address, name string) knocked
	connect func(ctx context.Context, via connectVia, target, name string) connected
	fetch   func(ctx context.Context, address, host, token string) fetched
	survey  func(ctx context.Context, kubeconfig, node string) (surveyed, error)
}

// stepTimeout bounds each step but the agent's probe, which has a bound of its own.
const stepTimeout = 10 * time.Second

// examine makes every check that can be made from here.
func (d *doctor) examine(ctx context.Context) DoctorReport {
	r := DoctorReport{Node: d.question.Node, Port: d.question.Port}
	status := d.examineAgent(ctx, &r)
	if d.question.Node == "" {
		return r
	}
	seen := d.examineObjects(ctx, &r)
	if name := cmp.Or(seen.host(), d.question.Node); d.question.Connect.URL != "" {
		r.add("name", checkSkip, "CONNECT needs no names", "", "")
		d.examineConnect(ctx, &r, name)
	} else {
		d.examineNamed(ctx, &r, status, seen, name)
	}
	d.examineHTTP(ctx, &r, status, seen)
	d.examineWay(ctx, &r, status)
	return r
}

// examineNamed looks for the node by its name.
func (d *doctor) examineNamed(ctx context.Context, r *DoctorReport, status *Status, seen surveyed, name string) {
	at, ok := d.examineName(ctx, r, seen, isFront(status))
	if !ok {
		at, ok = ownFront(status, d.question.Port)
	}
	if ok {
		d.examineFront(ctx, r, at, name)
	}
}

// stepped runs f for a step's time at most.
func stepped[T any](ctx context.Context, d time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}
