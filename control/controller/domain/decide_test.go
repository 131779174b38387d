package domain_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

func TestDecide(t *testing.T) {
	edge, apart, cloudPool := domain.Pool{Edge: true}, domain.Pool{Edge: true, Apart: true}, domain.Pool{}
	pools := func(p domain.Pool) map[string]domain.Pool { return map[string]domain.Pool{"hangzhou": p} }
	for _, tt := range []struct {
		name  string
		cloud []string
		state domain.State
		want  summary
	}{
		{"nothing", nil, domain.State{}, summary{}},
		{
			"a cloud", nil,
			domain.State{Nodes: []domain.Node{node("c1"), node("m1", master, "")}},
			summary{Create: map[string]string{"cloud": "cloud"}, Nodes: map[string]string{"c1": "cloud", "m1": "cloud"}},
		},
		{
			"an edge pool by its type", nil,
			domain.State{Nodes: []domain.Node{node("e1", poolLabel, "hangzhou")}, Pools: pools(edge)},
			summary{Create: map[string]string{"hangzhou": "pool/hangzhou"}, Nodes: map[string]string{"e1": "hangzhou"}},
		},
		{
			"an edge worker in a pool of type Cloud", nil,
			domain.State{Nodes: []domain.Node{node("e1", poolLabel, "hangzhou", edgeLabel, "true")}, Pools: pools(cloudPool)},
			summary{Create: map[string]string{"hangzhou": "pool/hangzhou"}, Nodes: map[string]string{"e1": "hangzhou"}},
		},
		{
			"a pool of type Cloud", nil,
			domain.State{Nodes: []domain.Node{node("c1", poolLabel, "hangzhou", edgeLabel, "false")}, Pools: pools(cloudPool)},
			summary{Create: map[string]string{"cloud": "cloud"}, Nodes: map[string]string{"c1": "cloud"}},
		},
		{
			"a control-plane node within an edge pool", nil,
			domain.State{Nodes: []domain.Node{node("m1", poolLabel, "hangzhou", edgeLabel, "true", master, "")}, Pools: pools(edge)},
			summary{Create: map[string]string{"cloud": "cloud"}, Nodes: map[string]string{"m1": "cloud"}},
		},
		{
			"an edge worker without pool is alone", nil,
			domain.State{Nodes: []domain.Node{node("e1", edgeLabel, "true"), node("e2", edgeLabel, "true")}, Pools: pools(edge)},
			summary{
				Create: map[string]string{"solo-e1": "node/e1", "solo-e2": "node/e2"},
				Nodes:  map[string]string{"e1": "solo-e1", "e2": "solo-e2"},
			},
		},
		{
			"a pool whose nodes do not reach each other", nil,
			domain.State{
				Nodes: []domain.Node{node("e1", poolLabel, "hangzhou"), node("e2", poolLabel, "hangzhou")}, Pools: pools(apart),
			},
			summary{
				Create: map[string]string{"solo-e1": "node/e1", "solo-e2": "node/e2"},
				Nodes:  map[string]string{"e1": "solo-e1", "e2": "solo-e2"},
			},
		},
		{
			"a pool becomes apart", nil,
			domain.State{
				Nodes: []domain.Node{in(node("e1", poolLabel, "hangzhou"), "hangzhou")}, Pools: pools(apart),
				Gateways: []domain.Gateway{ours("hangzhou", "pool/hangzhou")},
			},
			summary{
				Create: map[string]string{"solo-e1": "node/e1"}, Nodes: map[string]string{"e1": "solo-e1"},
				Delete: []string{"hangzhou"},
			},
		},
		{
			"no NodePool API: the label tells",
			[]string{"vpc"},
			domain.State{Nodes: []domain.Node{node("e1", poolLabel, "hangzhou"), node("c1", poolLabel, "vpc"), node("c2")}},
			summary{
				Create: map[string]string{"hangzhou": "pool/hangzhou", "cloud": "cloud"},
				Nodes:  map[string]string{"e1": "hangzhou", "c1": "cloud", "c2": "cloud"},
			},
		},
		{
			"NodePool API, but no such pool: the label tells nothing",
			[]string{"vpc"},
			domain.State{Nodes: []domain.Node{node("n1", poolLabel, "shanghai")}, Pools: pools(edge)},
			summary{Create: map[string]string{"cloud": "cloud"}, Nodes: map[string]string{"n1": "cloud"}},
		},
		{
			"edge workers of a pool that is gone stay together", nil,
			domain.State{Nodes: []domain.Node{node("e1", poolLabel, "shanghai", edgeLabel, "true")}, Pools: pools(edge)},
			summary{Create: map[string]string{"shanghai": "pool/shanghai"}, Nodes: map[string]string{"e1": "shanghai"}},
		},
		{
			"a pool without nodes gets none", nil,
			domain.State{Pools: pools(edge)},
			summary{},
		},
		{
			"the last node left: a pool keeps what people set on its Gateway", nil,
			domain.State{Pools: pools(edge), Gateways: []domain.Gateway{ours("hangzhou", "pool/hangzhou"), ours("cloud", "cloud")}},
			summary{},
		},
		{
			"the pool itself is gone", nil,
			domain.State{Pools: map[string]domain.Pool{}, Gateways: []domain.Gateway{ours("hangzhou", "pool/hangzhou")}},
			summary{Delete: []string{"hangzhou"}},
		},
		{
			"the last node with the label is gone, no NodePool API", nil,
			domain.State{Gateways: []domain.Gateway{ours("hangzhou", "pool/hangzhou")}},
			summary{Delete: []string{"hangzhou"}},
		},
		{
			"a node that was alone is gone", nil,
			domain.State{Pools: pools(edge), Gateways: []domain.Gateway{ours("solo-e1", "node/e1")}},
			summary{Delete: []string{"solo-e1"}},
		},
		{
			"a node moves to another pool", nil,
			domain.State{
				Nodes:    []domain.Node{in(node("e1", poolLabel, "b"), "a"), in(node("e2", poolLabel, "a"), "a")},
				Gateways: []domain.Gateway{ours("a", "pool/a")},
			},
			summary{Create: map[string]string{"b": "pool/b"}, Nodes: map[string]string{"e1": "b"}},
		},
		{
			"all is right", nil,
			domain.State{
				Nodes:    []domain.Node{in(node("e1", poolLabel, "a"), "a"), by(node("e2", poolLabel, "a"), "a")},
				Gateways: []domain.Gateway{ours("a", "pool/a")},
			},
			summary{},
		},
		{
			"a person's node in a person's Gateway stays", nil,
			domain.State{
				Nodes:    []domain.Node{by(node("e1", poolLabel, "a"), "mine"), node("e2", poolLabel, "a")},
				Gateways: []domain.Gateway{theirs("mine")},
			},
			summary{Create: map[string]string{"a": "pool/a"}, Nodes: map[string]string{"e2": "a"}},
		},
		{
			"so does one that we labelled before the Gateway became a person's", nil,
			domain.State{Nodes: []domain.Node{in(node("e1", poolLabel, "a"), "a")}, Gateways: []domain.Gateway{theirs("a")}},
			summary{},
		},
		{
			"a person puts a node into a Gateway of ours: the pool decides", nil,
			domain.State{
				Nodes:    []domain.Node{by(node("e1", poolLabel, "a"), "b"), in(node("e2", poolLabel, "b"), "b")},
				Gateways: []domain.Gateway{ours("a", "pool/a"), ours("b", "pool/b")},
			},
			summary{Nodes: map[string]string{"e1": "a"}},
		},
		{
			"a person names a Gateway that is not there yet", nil,
			domain.State{Nodes: []domain.Node{by(node("e1", poolLabel, "a"), "mine")}},
			summary{Strange: []string{"e1"}},
		},
		{
			"somebody deleted a Gateway of ours", nil,
			domain.State{Nodes: []domain.Node{in(node("e1", poolLabel, "a"), "a")}},
			summary{Create: map[string]string{"a": "pool/a"}},
		},
		{
			"it is still being deleted: its name becomes free soon", nil,
			domain.State{
				Nodes: []domain.Node{in(node("e1", poolLabel, "a"), "a"), node("e2", poolLabel, "a")}, Gateways: []domain.Gateway{deleting(ours("a", "pool/a"))},
			},
			summary{},
		},
		{
			"a node waits for one that is being deleted: the one that it has stays so long", nil,
			domain.State{
				Nodes:    []domain.Node{in(node("e1", poolLabel, "a"), "b")},
				Gateways: []domain.Gateway{deleting(ours("a", "pool/a")), ours("b", "pool/b")},
			},
			summary{},
		},
		{
			"two of one domain: the nodes go to the one with the right name", nil,
			domain.State{
				Nodes:    []domain.Node{in(node("e1", poolLabel, "b"), "b-1")},
				Gateways: []domain.Gateway{ours("b-1", "pool/b"), ours("b", "pool/b"), ours("a-2", "pool/b")},
			},
			summary{Nodes: map[string]string{"e1": "b"}, Delete: []string{"a-2", "b-1"}},
		},
		{
			"our label without a domain is a person's", nil,
			domain.State{Gateways: []domain.Gateway{ours("x", ""), ours("y", "pool/"), ours("z", "elsewhere")}},
			summary{},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.Cloud = tt.cloud
			if diff := cmp.Diff(tt.want, summarize(domain.Decide(cfg, tt.state)), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		node  domain.Node
		taken []string
		want  string // of the node's Gateway; with hashes of BLAKE2s-256 made by another program
	}{
		{"as the pool", node("e1", poolLabel, "hangzhou-1"), nil, "hangzhou-1"},
		{"35 characters", node("e1", poolLabel, strings.Repeat("a", 35)), nil, strings.Repeat("a", 35)},
		{"36 characters", node("e1", poolLabel, strings.Repeat("a", 36)), nil, strings.Repeat("a", 26) + "-@36"},
		{"a dot", node("e1", poolLabel, "cn.hangzhou"), nil, "cnhangzhou-@dot"},
		{"begins with a digit", node("e1", poolLabel, "1st"), nil, "st-@1st"},
		{"capitals", node("e1", poolLabel, "Hangzhou"), nil, "hangzhou-@cap"},
		{"nothing fits", node("e1", poolLabel, "123"), nil, "domain-@123"},
		{"a dash at the cut", node("e1", poolLabel, strings.Repeat("a", 25)+"-"+strings.Repeat("b", 20)), nil, strings.Repeat("a", 25) + "-@dash"},
		{"taken", node("e1", poolLabel, "a"), []string{"a"}, "a-@a"},
		{"a pool called cloud", node("e1", poolLabel, "cloud"), []string{"cloud"}, "cloud-@cloud"},
		{"alone, with dots", node("n1.example.com", edgeLabel, "true"), nil, "solo-n1examplecom-@solo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if head, key, ok := strings.Cut(want, "@"); ok {
				want = head + sums[key]
			}
			s := domain.State{Nodes: []domain.Node{tt.node}}
			for _, name := range tt.taken {
				s.Gateways = append(s.Gateways, theirs(name))
			}
			p := domain.Decide(config(), s)
			if len(p.Nodes) != 1 || p.Nodes[0].Gateway != want {
				t.Errorf("got %+v, want %s", p.Nodes, want)
			}
		})
	}
}

// TestTwoWantOneName checks that the cloud comes before pools, pools before nodes,
// and that the loser gets another name even if the hashed one is taken too.
func TestTwoWantOneName(t *testing.T) {
	p := domain.Decide(config(), domain.State{
		Nodes: []domain.Node{
			node("a", edgeLabel, "true"), node("e1", poolLabel, "solo-a", edgeLabel, "true"),
			node("e2", poolLabel, "cloud"), node("c1"),
		},
		Gateways: []domain.Gateway{theirs("cloud-" + sums["cloud"])},
	})
	got := map[string]string{}
	for _, g := range p.Create {
		got[g.Metadata.Annotations[v1beta1.AnnotationDomain]] = g.Metadata.Name
	}
	want := map[string]string{
		"cloud": "cloud", "pool/solo-a": "solo-a", "node/a": "solo-a-" + sums["solo-a"],
		"pool/cloud": "cloud-" + sums["pool/cloud"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// sums are the first 8 hex digits of BLAKE2s-256 of a name, made by Python's
// hashlib.
var sums = map[string]string{
	"36":         "34590414", // aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
	"dot":        "52ae35fe", // cn.hangzhou
	"1st":        "6c68dec1", // 1st
	"cap":        "c7260acd", // Hangzhou
	"123":        "e906644a", // 123
	"dash":       "0da7fc72", // aaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbbbbbb
	"a":          "4a0d1298", // a
	"cloud":      "fbe8e3f5", // cloud
	"solo":       "626f10fd", // solo-n1.example.com
	"solo-a":     "9185ce08", // solo-a
	"pool/cloud": "38a6476b", // pool/cloud
}
