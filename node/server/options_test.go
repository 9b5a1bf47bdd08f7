package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
)

// options reads flags, the environment and a file, which {dir}/node.yaml stands for in
// arguments and in errors.
func options(t *testing.T, file string, environ []string, args ...string) (c server.Config, origins server.Origins, said string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c = server.Default()
	f := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(f)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{dir}", dir)
	}
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	origins, err := server.ReadOptions(f, environ)
	for name, from := range origins {
		origins[name] = strings.ReplaceAll(from, dir+"/", "")
	}
	return c, origins, strings.ReplaceAll(strings.Join(server.Lines(err), "\n"), dir+"/", "")
}

// A flag goes before the environment, that before the file, and the file before defaults.
func TestWhereOptionsComeFrom(t *testing.T) {
	file := "region: us\nheartbeat: 5s\nmax-connections: 7\ninsecure: true\ntrace-ratio: 1\norigins:\n  - https://a\n  - 'https://b,c'\njoin: a:1,b:2\nhistory: 0\n"
	environ := []string{"STOCKMESH_HEARTBEAT=6s", "STOCKMESH_REGION=asia", "STOCKMESH_MAX_CONNECTIONS=", "PATH=/bin"}
	c, origins, said := options(t, file, environ, "--config", "{dir}/node.yaml", "--region", "eu")
	if said != "" {
		t.Fatal(said)
	}
	want := server.Default()
	want.File, want.Region, want.Heartbeat, want.MaxConnections, want.Insecure, want.TraceRatio = c.File, "eu", 6*time.Second, 7, true, 1
	want.Origins, want.Join, want.History = []string{"https://a", "https://b,c"}, []string{"a:1", "b:2"}, 0
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	from := server.Origins{
		"config": "flag", "region": "flag", "heartbeat": "STOCKMESH_HEARTBEAT", "max-connections": "node.yaml:3", "insecure": "node.yaml:4",
		"trace-ratio": "node.yaml:5", "origins": "node.yaml:6", "join": "node.yaml:9", "history": "node.yaml:10",
	}
	if d := cmp.Diff(from, origins); d != "" {
		t.Error(d)
	}
}

func TestFileNamedByTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "stock.yaml")
	if err := os.WriteFile(file, []byte("region: eu"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _, said := options(t, "", []string{"STOCKMESH_CONFIG=" + file}); said != "" || c.Region != "eu" {
		t.Errorf("%q %s", c.Region, said)
	}
	if _, _, said := options(t, "", []string{"STOCKMESH_CONFIG=" + file + "x"}); !strings.Contains(said, "--config: open "+file+"x") {
		t.Error(said)
	}
}

// What isn't ours is let be; what looks like ours and isn't is a mistake.
func TestVariables(t *testing.T) {
	for variable, want := range map[string]string{
		"STOCKMESH_MAX_CONECTIONS=1":                    "STOCKMESH_MAX_CONECTIONS: no option has this variable, did you mean STOCKMESH_MAX_CONNECTIONS?",
		"STOCKMESH_ANYTHING_ELSE=1":                     "STOCKMESH_ANYTHING_ELSE: no option has this variable",
		"STOCKMESH_=":                                   "STOCKMESH_: no option has this variable",
		"STOCKMESH_DRAIN=soon":                          `STOCKMESH_DRAIN: invalid argument "soon" for "--drain" flag: time: invalid duration "soon"`,
		"STOCKMESH_DRAIN=":                              "",
		"stockmesh_drain=x":                             "",
		"STOCKMESH_TOKEN_FILE=/t":                       "", // stockctl's
		"STOCKMESH_TEST_NODE=1":                         "",
		"STOCKMESH_SERVICE_HOST=10.0.1":                 "", // Kubernetes' of a service stockmesh
		"STOCKMESH_SERVICE_PORT=8080":                   "",
		"STOCKMESH_SERVICE_PORT_EDGE=1":                 "",
		"STOCKMESH_PORT=tcp://10.0.0.1":                 "",
		"STOCKMESH_PORT_8080_TCP=tcp":                   "",
		"STOCKMESH_PORT_7946_UDP_ADDR=":                 "",
		"STOCKMESH_HEADLESS_SERVICE_HOST=10.0.0.1":      "", // of one called stockmesh-headless
		"STOCKMESH_EU_WEST_PORT_6222_TCP_PROTO=tcp":     "",
		"STOCKMESH_PORT_8080_TCP_ADDRESS=10.0.0.1":      "STOCKMESH_PORT_8080_TCP_ADDRESS: no option has this variable",
		"STOCKMESH_EU_SERVICE_PORT_GOSSIP_UDP=7946":     "",
		"STOCKMESH_EU_WEST_SERVICE_HOSTS=10.0.0.1":      "STOCKMESH_EU_WEST_SERVICE_HOSTS: no option has this variable",
		"STOCKMESH_EU_WEST_PORT_6222_TCP_PORT=six-four": "",
	} {
		if _, _, said := options(t, "", []string{variable}); said != want {
			t.Errorf("%s: %q, want %q", variable, said, want)
		}
	}
}

// An empty variable, as templates leave behind, doesn't take away what the file asks for.
func TestEmptyVariableOpensNothing(t *testing.T) {
	c, _, said := options(t, "jwks: keys.json", []string{"STOCKMESH_JWKS="}, "--config", "{dir}/node.yaml")
	if said != "" || c.JWKS != "keys.json" {
		t.Errorf("%q %s", c.JWKS, said)
	}
}

// Every mistake is told, with its line, also in what something else stands above.
func TestMistakesInAFile(t *testing.T) {
	file := `# a comment
region: eu
max_connections: 5
rate-limit: "5"
region: us
jwks:
name: 12
drain: 30
heartbeat: 5
join: [a:1, 2]
config: other.yaml
insecure: yes
origins: {a: b}
rate-burst: 010
rate-limit-per-user: 1e3
history: 0
`
	c, _, said := options(t, file, nil, "--config", "{dir}/node.yaml", "--drain", "5s")
	want := `node.yaml:3: "max_connections" is no option, did you mean max-connections?
node.yaml:4: rate-limit: want a whole number, as 1000, not "5"
node.yaml:5: region stands in line 2 already
node.yaml:6: jwks: has no value: write "" for an empty one, or leave the line out
node.yaml:7: name: want text, not 12: put quotes around it
node.yaml:8: drain: want a time with its unit, as 150ms, 30s or 24h, not 30
node.yaml:9: heartbeat: want a time with its unit, as 150ms, 30s or 24h, not 5
node.yaml:10: join: item 2: want text, not 2: put quotes around it
node.yaml:11: config names this file, and can't stand in it
node.yaml:12: insecure: want true or false
node.yaml:13: origins: want text, not {a: b}: put quotes around it
node.yaml:14: rate-burst: want a whole number, as 1000, not 010
node.yaml:15: rate-limit-per-user: want a whole number, as 1000, not 1e3`
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
	if c.Region != "eu" || c.History != 0 {
		t.Errorf("what is right was not set: %+v", c)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for file, want := range map[string]string{
		"":                                   "",
		"---\n# nothing\n":                   "",
		"- a\n":                              "node.yaml:1: want options, as max-connections: 1000",
		"region":                             "node.yaml:1: want options, as max-connections: 1000",
		"region: eu\n---\nname: a":           "node.yaml:3: a second document: a file holds one",
		"region: &r eu":                      `node.yaml:1: "&" is not taken here: an option is plain, as max-connections: 1000`,
		"\nregion: !!str eu":                 `node.yaml:2: "!!str" is not taken here: an option is plain, as max-connections: 1000`,
		"region: |\n  eu\n":                  `node.yaml:1: "|" is not taken here: an option is plain, as max-connections: 1000`,
		"region: \"e\\nu\"\n":                "node.yaml:1: region: want one line of text",
		"join: [[a]]":                        "node.yaml:1: an option is a value or a list of values, nothing deeper, and there are not 1000 of them",
		"join:\n  - - a":                     "node.yaml:2: an option is a value or a list of values, nothing deeper, and there are not 1000 of them",
		"join: ['']":                         "node.yaml:1: join: item 1 is empty",
		"region: eu\n  name: x\n":            "node.yaml:1: no YAML: ",
		"region: \"eu":                       "node.yaml:1: no YAML: ",
		strings.Repeat("#", 1<<20+1):         "--config: node.yaml: more than 1048576 bytes",
		strings.Repeat("[", 1<<19):           "node.yaml:1: an option is a value or a list",
		strings.Repeat("- ", 1<<18):          "node.yaml:1: an option is a value or a list",
		strings.Repeat("region: eu\n", 2000): "node.yaml:1001: an option is a value or a list",
	} {
		_, _, said := options(t, file, nil, "--config", "{dir}/node.yaml")
		if said != want && (want == "" || !strings.HasPrefix(said, want) || strings.Contains(said, "\n")) {
			t.Errorf("%.40q: %q, want %q", file, said, want)
		}
	}
}

// What is shown is a file that makes the same configuration.
func TestShownOptionsAreAFile(t *testing.T) {
	show := func(changed bool, args ...string) (server.Config, string) {
		c := server.Default()
		f := pflag.NewFlagSet("node", pflag.ContinueOnError)
		c.Bind(f)
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		origins, err := server.ReadOptions(f, []string{"STOCKMESH_DATA=/data dir #1"})
		if err != nil {
			t.Fatal(err)
		}
		return c, server.ShowOptions(f, origins, changed)
	}
	for _, args := range [][]string{
		{},
		{"--name", "no", "--region", "123", "--insecure", "--expect", "3", "--trace-ratio", "0.25", "--join", `a:1,"b,c",'d`},
		{"--wan-gossip", ":7947"}, // the default, but given
		{"--join-region", "us-1:7947,us-2:7947", "--history", "0", "--heartbeat", "1m30s", "--jwt-issuer", `"\: {`},
	} {
		for _, changed := range []bool{false, true} {
			c, shown := show(changed, args...)
			again, _, said := options(t, shown, nil, "--config", "{dir}/node.yaml")
			c.File, again.File = "", ""
			if d := cmp.Diff(c, again, cmpopts.EquateEmpty()); d != "" || said != "" {
				t.Errorf("%v: %s\n%s\n%s", args, d, said, shown)
			}
		}
	}
	_, shown := show(true, "--expect", "1")
	if want := fmt.Sprintf("# The node\n%-48s # STOCKMESH_DATA\n# Nodes of one region\n%-48s # flag\n", `data: "/data dir #1"`, "expect: 1"); shown != want {
		t.Errorf("got\n%s", shown)
	}
	_, shown = show(false, "--jwks", "https://me:sesame@keys.example/jwks?key=sesame")
	if strings.Contains(shown, "sesame") || !strings.Contains(shown, `# jwks: "https://keys.example/jwks"`) {
		t.Errorf("got\n%s", shown)
	}
}
