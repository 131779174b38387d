package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
)

// Exit codes of corax run that are not the command's own, as of env and nohup.
const (
	exitRunFailed   = 125
	exitRunNotExec  = 126
	exitRunNotFound = 127
)

// What the namespace of a command looks like. Its addresses are those that RFC 7335 set
// aside for use inside of one host, and a local one: nothing else is reached by them.
const (
	runTUN = "corax0"
	runMTU = 16384
)

func runAddrs() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 2}), runAddr6(2)}
}

func runNameServer() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 1}) }

// runAddr6 is an address of fd72:756e::/32, of which the letters are r, u and n.
func runAddr6(n byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x72, 0x75, 0x6e, 15: n})
}

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [--socket FILE] -- COMMAND [ARG...]",
		Short: "Run a program whose network is that of the other domains",
		Long: `Run a program in a user and network namespace of its own, in which everything that
it sends goes to the agent of this node and from there to the other domains: pods,
Services when the agent has --service-cidr, and names when it has --cluster-dns. It
reaches nothing else: not this host, not the Internet. It runs as the same user, with
the same files. The namespace ends with it.

User namespaces and /dev/net/tun have to be allowed here. Pings are carried, too.

Exit codes: that of the command; 128 and the number of the signal that ended it; 125
it could not be begun or its network broke, 126 it cannot be executed, 127 there is
no such command, 3 wrong usage.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("a command is needed")
			}
			return nil
		},
	}
	socket := socketFlag(cmd)
	verbose := cmd.Flags().BoolP("verbose", "v", false, "say what was carried and dropped, and why, on standard error")
	cmd.Flags().SetInterspersed(false) // what comes after COMMAND is its own
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code, err := runCommand(cmd.Context(), *socket, args, *verbose, cmd.ErrOrStderr())
		if err != nil {
			e := &exitError{code: code, err: fmt.Errorf("run: %w", err), hint: hint(err)}
			if agent, ok := errors.AsType[*exitError](err); ok {
				e.hint = agent.hint
			}
			return e
		}
		if code != 0 {
			return &exitError{code: code}
		}
		return nil
	}
	return cmd
}

// hinted is an error with what may help.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error itself.
func (h *hinted) Unwrap() error { return h.error }

// Hint returns what may help.
func (h *hinted) Hint() string { return h.hint }
