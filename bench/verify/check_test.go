package verify

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestHealthyMeshHasNoFaults(t *testing.T) {
	nodes := healthy()
	nodes[1].token = "s3cret"
	r, err := checked(t, nodes, nil)
	if err != nil || r.FaultsTotal != 0 {
		t.Fatalf("%v, %v", err, r.Faults)
	}
	looked := map[string]int64{"readable": 6, "bounds": 6, "one-body": 3, "never-back": 0, "equal": 3, "history": 9, "keys": 8, "reservations": 1, "mesh": 4}
	for name, want := range looked {
		if got := r.Looked(name); got != want {
			t.Errorf("%s has looked at %d, want %d", name, got, want)
		}
	}
	us := r.Nodes[1]
	if us.Name != "us-1" || us.Items != 3 || us.OnHand != 20 || us.Reserved != 1 || us.Available != 19 || us.LagMS != 40 {
		t.Errorf("%+v", us)
	}
	var out bytes.Buffer
	r.Print(&out)
	if text := out.String(); strings.Contains(text, "s3cret") || !strings.Contains(text, "3 items on 2 nodes") {
		t.Errorf("%s", text)
	}
}

func TestHistoriesAreAskedWhereTheyAre(t *testing.T) {
	nodes := healthy()
	if _, err := checked(t, nodes, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range nodes {
		f.mu.Lock()
		for _, r := range f.requests {
			if r.Op == protocol.OpHistory && r.Region != f.region {
				t.Errorf("%s was asked for the history in %s", f.node, r.Region)
			}
		}
		f.mu.Unlock()
	}
}

// at finds an item of a fake.
func (f *fake) at(sku string) *protocol.Item {
	return &f.items[slices.IndexFunc(f.items, func(it protocol.Item) bool { return it.SKU == sku })]
}

// both lets a change hold on both nodes.
func both(nodes []*fake, change func(*fake)) {
	for _, f := range nodes {
		change(f)
	}
}

var oversold = func(f *fake) {
	f.movements["us/cap"] = chain("us", "cap", protocol.Movement{Type: "count", OnHandDelta: 3}, protocol.Movement{Type: "sell", OnHandDelta: -4})
	*f.at("cap") = shop("cap", -1, 0, "us:2")
}

func TestEachFaultIsFoundByName(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(eu, us *fake)
		check string
		text  string
	}{
		"reserved below zero": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) { f.at("mug").Reserved, f.at("mug").Available = -1, 4 })
		}, "bounds", `"mug": eu-1 shows 3 on hand, -1 reserved`},
		"oversold": {func(eu, us *fake) { both([]*fake{eu, us}, oversold) }, "bounds", `"cap" at "main": oversold by 1`},
		"available though reserved": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) { f.at("mug").Available = 3 })
		}, "bounds", `"mug" at "main": 3 available: want 2`},
		"two bodies on two nodes":  {func(_, us *fake) { us.at("tee").OnHand = 15 }, "one-body", `"tee" at version eu:2,us:1: `},
		"two times of one version": {func(_, us *fake) { us.at("tee").UpdatedAt++ }, "one-body", "12:00:00.001"},
		"two bodies on one connection": {func(eu, _ *fake) {
			eu.pushes = [][]protocol.Item{{shop("tee", 13, 0, "eu:2,us:1")}}
		}, "one-body", "eu-1 showed 14 on hand"},
		"a version that goes back": {func(eu, _ *fake) {
			eu.pushes = [][]protocol.Item{{shop("mug", 3, 1, "eu:4")}, {shop("mug", 3, 1, "eu:5")}}
		}, "never-back", `"mug": eu-1 showed eu:5 and then eu:4`},
		"a region's part that goes back": {func(eu, _ *fake) {
			eu.pushes = [][]protocol.Item{{shop("tee", 14, 0, "eu:3")}, {shop("tee", 14, 0, "eu:2,us:1")}}
		}, "never-back", "eu-1 showed eu:2,us:1 and then eu:3"},
		"an item that goes back to nothing": {func(eu, _ *fake) {
			eu.pushes = [][]protocol.Item{{shop("mug", 0, 0, "")}, {shop("mug", 3, 1, "eu:5")}}
		}, "never-back", `"mug": eu-1 showed eu:5 and then nothing`},
		"an item that isn't there": {func(_, us *fake) {
			us.items = append(us.items, shop("hat", 0, 0, ""))
		}, "readable", `us-1 sent "hat" at "main" without a version`},
		"a node that stays behind": {func(_, us *fake) {
			*us.at("mug") = shop("mug", 3, 1, "eu:4")
		}, "equal", `"mug": us-1 still shows eu:4`},
		"an item that a node lacks": {func(eu, _ *fake) {
			eu.items = slices.DeleteFunc(eu.items, func(it protocol.Item) bool { return it.SKU == "cap" })
		}, "equal", `"cap": eu-1 still shows nothing`},
		"a snapshot that lacks an item":  {func(eu, _ *fake) { eu.announced = 4 }, "readable", "eu-1 sent 3 items in a snapshot and says it were 4"},
		"a version that none can read":   {func(eu, _ *fake) { eu.at("cap").Version = "us:01" }, "readable", `"us:01" is not a version`},
		"a name that nobody may give":    {func(eu, _ *fake) { eu.at("cap").SKU = "c\tp" }, "readable", "control character"},
		"a movement without its effect":  {func(eu, _ *fake) { eu.movements["eu/tee"][0].OnHandDelta = -2 }, "history", "leads from 10 and 0 to 9 and 0"},
		"movements out of order":         {func(eu, _ *fake) { eu.movements["eu/tee"][0].Sequence = "eu.0.10.6" }, "history", "eu.0.10.6 comes after eu.0.10.7"},
		"a movement of another item":     {func(eu, _ *fake) { eu.movements["eu/tee"][0].SKU = "hat" }, "history", `of "hat" at "main" in eu`},
		"more movements than versions":   {func(_, us *fake) { us.movements["us/cap"] = append(us.movements["us/cap"], us.movements["us/cap"]...) }, "history", "us has 2 movements of version 1"},
		"units that no movement brought": {func(eu, us *fake) { both([]*fake{eu, us}, func(f *fake) { f.at("tee").OnHand = 15 }) }, "history", "15 are on hand and 0 reserved, the newest movements say 14 and 0"},
		"a key with two effects":         {func(eu, _ *fake) { eu.movements["eu/tee"][0].Key = "k1" }, "keys", `key "k1" made count eu.0.10.7 and sell eu.0.11.7`},
		"a reservation with two ends": {func(eu, _ *fake) {
			eu.movements["eu/mug"][0].Type, eu.movements["eu/mug"][0].Reservation = "expire", "eu.r1"
		}, "reservations", "eu.r1 ended by confirm eu.0.13.7, and then came expire eu.0.14.7"},
		"reserved below zero before": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) {
				f.movements["us/cap"] = chain("us", "cap", protocol.Movement{Type: "release", ReservedDelta: -1}, protocol.Movement{Type: "reserve", ReservedDelta: 1}, protocol.Movement{Type: "count", OnHandDelta: 3})
				f.at("cap").Version = "us:3"
			})
		}, "bounds", "-1 were reserved after us.0.10.7"},
		"a region that is cut off": {func(eu, _ *fake) { eu.mesh.Regions[1].State = "cut_off" }, "mesh", "eu-1 sees region us cut off"},
		"a region that one ignores": {func(eu, _ *fake) {
			eu.mesh.Regions = eu.mesh.Regions[:1]
		}, "mesh", "eu-1 knows of no region us"},
		"no view of the mesh": {func(_, us *fake) { us.meshStatus = http.StatusInternalServerError }, "mesh", "us-1: GET /v1/mesh: 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := healthy()
			c.do(nodes[0], nodes[1])
			r, err := checked(t, nodes, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Check == c.check && strings.Contains(f.Text, c.text) }) {
				t.Errorf("found %q", r.Faults)
			}
			if r.Err() == nil || int64(len(r.Faults)) != r.FaultsTotal {
				t.Errorf("%v: %d of %d faults", r.Err(), len(r.Faults), r.FaultsTotal)
			}
		})
	}
}

// TestWhatCannotBeLookedAt is a matter of notes, but for nodes of one's own.
func TestWhatCannotBeLookedAt(t *testing.T) {
	forbidden := &protocol.Error{Code: protocol.CodeForbidden, Message: "no"}
	deep := func(eu, us *fake) {
		both([]*fake{eu, us}, func(f *fake) {
			oversold(f)
			f.movements["us/cap"] = f.movements["us/cap"][:1]
		})
	}
	for name, c := range map[string]struct {
		do    func(eu, us *fake)
		check string // "": no fault on one's own nodes either
		text  string
	}{
		"nothing":               {func(_, _ *fake) {}, "", ""},
		"no history":            {func(eu, _ *fake) { eu.noHistory = forbidden }, "history", "the history in eu can't be read: forbidden"},
		"a history that went":   {func(eu, _ *fake) { eu.movements["eu/tee"] = nil }, "history", `"tee" at "main": eu has no movement of version 2`},
		"all histories went":    {func(eu, us *fake) { eu.movements, us.movements = nil, nil }, "history", "us has no movement of version 1"},
		"the mesh":              {func(eu, _ *fake) { eu.meshStatus = http.StatusForbidden }, "mesh", "eu-1: not allowed"},
		"a history that is cut": {deep, "bounds", `"cap" at "main": oversold by 1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, own := range []bool{false, true} {
				nodes := healthy()
				c.do(nodes[0], nodes[1])
				r, err := checked(t, nodes, func(config *Config) { config.Own = own })
				if err != nil {
					t.Fatal(err)
				}
				found := slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Check == c.check && strings.Contains(f.Text, c.text) })
				if wanted := own && c.check != ""; found != wanted || (r.FaultsTotal > 0) != wanted {
					t.Errorf("own %v: found %q", own, r.Faults)
				}
			}
		})
	}
}

func TestWhatIsNoFault(t *testing.T) {
	catchUp := func(_, us *fake) {
		*us.at("mug") = shop("mug", 3, 0, "eu:4")
		us.every = 100 * time.Millisecond
		us.pushes = [][]protocol.Item{{shop("mug", 3, 1, "eu:5")}}
	}
	for name, c := range map[string]struct {
		do   func(eu, us *fake)
		note string
	}{
		"a node that catches up": {catchUp, ""},
		"a backorder": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) {
				oversold(f)
				f.movements["us/cap"] = append(f.movements["us/cap"], chain("us", "cap", protocol.Movement{Type: "configure"})...)
				f.movements["us/cap"][2].Sequence = "us.0.9.0"
				f.at("cap").Version = "us:3"
			})
		}, ""},
		"a backorder of long ago": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) { oversold(f); f.at("cap").Version = "us:7" })
		}, "1 items owe units"},
		"a key used again after its window": {func(eu, _ *fake) {
			eu.movements["eu/tee"][0].Key = "k1"
			eu.movements["eu/tee"][0].At += protocol.Time((25 * time.Hour).Milliseconds())
		}, ""},
		"histories that may not be read": {func(eu, us *fake) {
			both([]*fake{eu, us}, func(f *fake) { f.noHistory = protocol.NewError(protocol.CodeForbidden, "no") })
		}, "4 histories could not be read"},
		"a mesh that may not be seen": {func(eu, _ *fake) { eu.meshStatus = http.StatusForbidden }, "eu-1 does not let us see it"},
		"a region that comes back":    {func(eu, _ *fake) { eu.cutFor.Store(2) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := healthy()
			c.do(nodes[0], nodes[1])
			r, err := checked(t, nodes, func(c *Config) { c.Settle = 20 * time.Second })
			if err != nil || r.FaultsTotal > 0 {
				t.Fatalf("%v, %v", err, r.Faults)
			}
			if !slices.ContainsFunc(r.Checks, func(k CheckCount) bool { return strings.Contains(k.Note, c.note) }) {
				t.Errorf("no note %q in %+v", c.note, r.Checks)
			}
		})
	}
}

// TestTrafficMayGoOn has two nodes show an item that never stands still, one always behind.
func TestTrafficMayGoOn(t *testing.T) {
	nodes := healthy()
	for n, f := range nodes {
		f.every = 2 * time.Millisecond
		for i := range 500 {
			version := max(3, 3+i-10*n) // the second shows the same ten changes later
			f.pushes = append(f.pushes, []protocol.Item{shop("tee", int64(version), 0, fmt.Sprintf("eu:%d,us:1", version))})
		}
	}
	r, err := checked(t, nodes, func(c *Config) { c.Watch = 100 * time.Millisecond })
	if err != nil || r.FaultsTotal > 0 {
		t.Fatalf("%v, %v", err, r.Faults)
	}
	if r.Looked("never-back") == 0 || r.Looked("equal") != 6 {
		t.Errorf("%+v", r.Checks)
	}
}

func TestPrefixes(t *testing.T) {
	r, err := checked(t, healthy(), func(c *Config) { c.Prefixes = []string{"te", "cap"} })
	if err != nil || r.Items != 2 || r.FaultsTotal > 0 {
		t.Errorf("%v, %d items, %v", err, r.Items, r.Faults)
	}
}

// TestDepth reads histories page by page, and no further than asked.
func TestDepth(t *testing.T) {
	nodes := healthy()
	var moves []protocol.Movement
	for range 700 {
		moves = append(moves, protocol.Movement{Type: "adjust", OnHandDelta: 1})
	}
	both(nodes, func(f *fake) {
		f.movements["us/cap"] = chain("us", "cap", moves...)
		*f.at("cap") = shop("cap", 700, 0, "us:700")
	})
	for depth, want := range map[int]int64{40: 40 + 8, 600: 600 + 8, 2000: 700 + 8} {
		r, err := checked(t, nodes, func(c *Config) { c.Depth = depth })
		if err != nil || r.FaultsTotal > 0 || r.Looked("history") != want {
			t.Errorf("depth %d: %v, %v, %d movements", depth, err, r.Faults, r.Looked("history"))
		}
	}
}

func TestNodesThatCannotBeLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config, []*fake)
		want   string
	}{
		"none":          {func(c *Config, _ []*fake) { c.Endpoints = nil }, "no endpoints"},
		"not a URL":     {func(c *Config, _ []*fake) { c.Endpoints = []string{"ws://:s3cret@a b"} }, "can't be read"},
		"not WebSocket": {func(c *Config, _ []*fake) { c.Endpoints = []string{"http://:s3cret@a:1/"} }, "want ws://host"},
		"nobody there":  {func(c *Config, _ []*fake) { c.Endpoints = []string{"ws://:s3cret@127.0.0.1:1/"} }, "127.0.0.1:1"},
		"leaving":       {func(_ *Config, n []*fake) { n[0].leaves = true }, "eu-1: it is leaving"},
		"refused":       {func(_ *Config, n []*fake) { n[0].token = "s3cret" }, "401"},
		"negative":      {func(c *Config, _ []*fake) { c.Watch = -1 }, "none may be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := healthy()
			_, err := checked(t, nodes, func(config *Config) {
				config.Watch = time.Minute
				c.change(config, nodes)
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
