package hostnet

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// forwardChain is a base chain at the forward hook.
type forwardChain struct {
	chain *nftables.Chain
	rules []*nftables.Rule
}

func (f forwardChain) String() string {
	return fmt.Sprintf("%s %s %s", familyName(f.chain.Table.Family), f.chain.Table.Name, f.chain.Name)
}

func (f forwardChain) drops() bool {
	return f.chain.Policy != nil && *f.chain.Policy == nftables.ChainPolicyDrop
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	default:
		return "inet"
	}
}

// forwardChains lists the base chains that see forwarded packets. The tables of
// iptables-nft are among them.
func forwardChains(c *nftables.Conn) ([]forwardChain, error) {
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var out []forwardChain
	for _, ch := range chains {
		switch ch.Table.Family {
		case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
		default:
			continue
		}
		if ch.Type != nftables.ChainTypeFilter || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return nil, fmt.Errorf("list nftables chain %s: %w", ch.Name, err)
		}
		out = append(out, forwardChain{ch, rules})
	}
	return out, nil
}

// passRules are the two rules that let the device's packets through.
func passRules(device string) [2][]expr.Any {
	var out [2][]expr.Any
	for i, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		out[i] = append(ifMatch(key, device), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
	}
	return out
}

// ourPassRules returns the rules of ours in a foreign chain by their index in
// passRules; there may be several after an interrupted run.
func ourPassRules(rules []*nftables.Rule, device string) (ours [2][]*nftables.Rule) {
	for i, want := range passRules(device) {
		text := ruleText(want)
		for _, r := range rules {
			if commentOf(r.UserData) == Comment && ruleText(r.Exprs) == text {
				ours[i] = append(ours[i], r)
			}
		}
	}
	return ours
}

// syncForward puts our two rules at the head of each chain that drops by
// policy, and takes them out of the others. A chain that cannot be changed, or
// that rejects in its last rule, is reported.
func syncForward(c *nftables.Conn, device string) (changes int, problems []Problem, err error) {
	chains, err := forwardChains(c)
	if err != nil {
		return 0, nil, err
	}
	for _, f := range chains {
		n, err := syncChain(c, f, device, f.drops())
		changes += n
		switch {
		case err != nil && f.drops():
			problems = append(problems, blocked(f, device, fmt.Sprintf("drops forwarded packets, and refused our rules (%v)", err)))
		case !f.drops() && endsInDrop(f.rules) && !mentions(f.rules, device):
			problems = append(problems, blocked(f, device, "ends in a rule that drops or rejects"))
		}
	}
	return changes, problems, nil
}

func syncChain(c *nftables.Conn, f forwardChain, device string, present bool) (changes int, err error) {
	ours, pass := ourPassRules(f.rules, device), passRules(device)
	for i := range slices.Backward(pass[:]) {
		old := ours[i]
		if present && len(old) > 0 {
			old = old[1:]
		} else if present {
			c.InsertRule(&nftables.Rule{Table: f.chain.Table, Chain: f.chain, Exprs: pass[i], UserData: comment(Comment)})
			changes++
		}
		for _, r := range old {
			if err := c.DelRule(&nftables.Rule{Table: f.chain.Table, Chain: f.chain, Handle: r.Handle}); err != nil {
				return 0, err
			}
			changes++
		}
	}
	return changes, c.Flush()
}

// removeForward takes our rules out of every chain.
func removeForward(c *nftables.Conn, device string) error {
	chains, err := forwardChains(c)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range chains {
		if _, err := syncChain(c, f, device, false); err != nil {
			errs = append(errs, fmt.Errorf("delete our rules from nftables chain %v: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

func blocked(f forwardChain, device, why string) Problem {
	return Problem{
		Name: "forward_drop",
		What: fmt.Sprintf("nftables chain %v %s: packets between pods and %s may not pass", f, why, device),
		Mend: fmt.Sprintf("nft insert rule %v iifname %s accept; nft insert rule %v oifname %s accept", f, device, f, device),
	}
}

// endsInDrop reports whether the last rule takes every packet that is left.
func endsInDrop(rules []*nftables.Rule) bool {
	if len(rules) == 0 {
		return false
	}
	last := rules[len(rules)-1]
	ends := false
	for _, e := range last.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Verdict:
			ends = e.Kind == expr.VerdictDrop
		case *expr.Reject:
			ends = true
		case *expr.Target:
			ends = e.Name == "REJECT"
		default:
			return false // it matches something
		}
	}
	return ends
}

// mentions reports whether a rule names the device, so that somebody has
// thought of it.
func mentions(rules []*nftables.Rule, device string) bool {
	return slices.ContainsFunc(rules, func(r *nftables.Rule) bool {
		return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
			c, ok := e.(*expr.Cmp)
			return ok && string(trimZero(c.Data)) == device
		})
	})
}

func trimZero(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
