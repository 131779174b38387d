package domain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"corax/control/api/v1beta1"
)

// Decide returns what is to be written, so that what it decides next from the
// result is nothing. It takes time in proportion to the size of s, and changes
// nothing of it.
func Decide(cfg Config, s State) Plan {
	d := decision{cfg: &cfg, pools: s.Pools, held: map[string]bool{}}
	d.index(s.Gateways)
	homes := make([]ID, len(s.Nodes))
	for i := range s.Nodes {
		homes[i] = d.home(&s.Nodes[i])
	}
	d.gateways()
	for i := range s.Nodes {
		d.label(&s.Nodes[i], homes[i])
	}
	d.plan.Delete = slices.DeleteFunc(d.plan.Delete, func(name string) bool { return d.held[name] })
	d.sort()
	return d.plan
}

type decision struct {
	cfg   *Config
	pools map[string]Pool
	plan  Plan

	named  map[string]*Gateway // every Gateway that exists
	ours   map[ID]*Gateway     // the one of each domain
	spare  []*Gateway          // further ones of the same domain
	wanted map[ID]bool         // domains with nodes
	target map[ID]string       // the name that the nodes of a domain get
	held   map[string]bool     // Gateways whose nodes wait for another one
}

// index sorts the Gateways by who made them.
func (d *decision) index(gateways []Gateway) {
	d.named = make(map[string]*Gateway, len(gateways))
	d.ours = make(map[ID]*Gateway, len(gateways))
	d.wanted = make(map[ID]bool, len(gateways))
	for i := range gateways {
		g := &gateways[i]
		d.named[g.Metadata.Name] = g
		id := Of(&g.Gateway)
		if id == "" {
			continue
		}
		if other := d.ours[id]; other == nil {
			d.ours[id] = g
		} else if better(id, g, other) {
			d.ours[id] = g
			d.spare = append(d.spare, other)
		} else {
			d.spare = append(d.spare, g)
		}
	}
}

// better reports whether a is rather kept than b.
func better(id ID, a, b *Gateway) bool {
	rank := func(g *Gateway) int {
		switch {
		case g.Deleting:
			return 2
		case g.Metadata.Name != id.wantedName():
			return 1
		default:
			return 0
		}
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Metadata.Name, b.Metadata.Name)) < 0
}

// home returns the domain of a node that we manage, and notes that it is wanted;
// empty for a node that a person put somewhere.
func (d *decision) home(n *Node) ID {
	if has := n.Labels[v1beta1.LabelGateway]; has != "" {
		g := d.named[has]
		switch {
		case g == nil && !n.Ours:
			d.plan.Strange = append(d.plan.Strange, Problem{n.Name, fmt.Sprintf(
				"label %s names Gateway %q, which does not exist; make it, or remove the label to have the node managed",
				v1beta1.LabelGateway, has)})
			return ""
		case g != nil && Of(&g.Gateway) == "":
			return ""
		}
	}
	id := d.cfg.of(n, d.pools)
	d.wanted[id] = true
	return id
}

// gateways decides about each Gateway of ours, and makes those that are missing.
func (d *decision) gateways() {
	d.target = make(map[ID]string, len(d.wanted))
	for id, g := range d.ours {
		switch {
		case g.Deleting:
		case !d.wanted[id] && !id.lasts(d.pools):
			d.plan.Delete = append(d.plan.Delete, g.Metadata.Name)
		default:
			d.target[id] = g.Metadata.Name
			if c, ok := d.cfg.change(&g.Gateway); ok {
				d.plan.Change = append(d.plan.Change, c)
			}
		}
	}
	for _, g := range d.spare {
		if !g.Deleting {
			d.plan.Delete = append(d.plan.Delete, g.Metadata.Name)
		}
	}
	d.create()
}

// create makes the missing Gateways. Where one of the same domain is still being
// deleted, its name becomes free soon: its nodes wait.
func (d *decision) create() {
	var missing []ID
	for id := range d.wanted {
		if d.ours[id] == nil {
			missing = append(missing, id)
		}
	}
	slices.SortFunc(missing, func(a, b ID) int {
		return cmp.Or(cmp.Compare(a.order(), b.order()), cmp.Compare(a, b))
	})
	made := make(map[string]bool, len(missing))
	for _, id := range missing {
		name := nameFor(id, func(name string) bool { return made[name] || d.named[name] != nil })
		made[name] = true
		d.target[id] = name
		d.plan.Create = append(d.plan.Create, d.cfg.gateway(id, name))
	}
}

// order decides who gets a name that two want.
func (id ID) order() int {
	switch {
	case id == Cloud:
		return 0
	case strings.HasPrefix(string(id), poolPrefix):
		return 1
	default:
		return 2
	}
}

// label decides about the label of a node.
func (d *decision) label(n *Node, home ID) {
	if home == "" {
		return
	}
	has := n.Labels[v1beta1.LabelGateway]
	switch to, ok := d.target[home]; {
	case !ok:
		d.held[has] = true
	case has != to:
		d.plan.Nodes = append(d.plan.Nodes, Label{Node: n.Name, Had: has, Gateway: to})
	}
}

// sort puts the lists in an order that does not depend on the input's.
func (d *decision) sort() {
	slices.SortFunc(d.plan.Change, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(d.plan.Nodes, func(a, b Label) int { return strings.Compare(a.Node, b.Node) })
	slices.SortFunc(d.plan.Strange, func(a, b Problem) int { return strings.Compare(a.Node, b.Node) })
	slices.Sort(d.plan.Delete)
}
