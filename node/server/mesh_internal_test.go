package server

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// parsed is the configuration that flags and the environment make.
func parsed(t *testing.T, env map[string]string, args ...string) Config {
	t.Helper()
	c := Default()
	f := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	var environ []string
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	if _, err := ReadOptions(f, environ); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatLinksARegion(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  map[string]string
		want bool
	}{
		{nil, nil, false},
		{[]string{"--gossip", ":7000", "--rights-timeout", "1s"}, nil, false},
		{[]string{"--wan-gossip", ":7947"}, nil, true}, // the default, but given
		{[]string{"--link-listen", ":7422"}, nil, true},
		{[]string{"--join-region", "us-1:7947"}, nil, true},
		{nil, map[string]string{"STOCKMESH_WAN_GOSSIP": ":7947"}, true},
		{nil, map[string]string{"STOCKMESH_JOIN_REGION": "us-1:7947,us-2:7947"}, true},
		{nil, map[string]string{"STOCKMESH_JOIN_REGION": ""}, false},
		{[]string{"--join-region", ""}, nil, false},
	} {
		config := parsed(t, c.env, c.args...)
		if config.meshed() != c.want {
			t.Errorf("%v %v: linked %v", c.args, c.env, config.meshed())
		}
		config.Insecure = true
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := s.mesh(); (m != nil) != c.want || err != nil {
			t.Errorf("%v %v: %+v, %v", c.args, c.env, m, err)
		}
	}
	// Programs that build a Config.
	for name, tune := range map[string]func(*Config){
		"said":           func(c *Config) { c.Mesh = true },
		"other port":     func(c *Config) { c.WANGossip = "127.0.0.1:7000" },
		"other link":     func(c *Config) { c.LinkListen = "127.0.0.1:7001" },
		"region to join": func(c *Config) { c.JoinRegion = []string{"a:1"} },
	} {
		c := Default()
		if tune(&c); !c.meshed() {
			t.Errorf("%s: not linked", name)
		}
	}
	if (&Config{}).meshed() {
		t.Error("a Config with nothing in it is linked")
	}
}

// A list that is given twice, or from several flags, still adds up.
func TestJoinRegionIsAList(t *testing.T) {
	c := parsed(t, nil, "--join-region", "a:1,b:2", "--join-region", "c:3")
	if d := cmp.Diff([]string{"a:1", "b:2", "c:3"}, c.JoinRegion); d != "" {
		t.Error(d)
	}
}

func TestMeshFlagsRefused(t *testing.T) {
	certs := []string{"--mesh-cert", "a", "--mesh-key", "b", "--mesh-ca", "c"}
	with := func(args ...string) []string { return append(args, certs...) }
	for _, c := range []struct {
		args []string
		want string // "" is let through
	}{
		{with("--wan-gossip", ":7000"), ""},
		{with("--wan-gossip", ":7000", "--advertise-wan", "eu-1:7000", "--join-region", "[::1]:7000"), ""},
		{[]string{"--wan-gossip", ":7000", "--insecure"}, ""},
		{[]string{"--wan-gossip", ":7000"}, "or use --insecure"},
		{[]string{"--wan-gossip", ":7000", "--mesh-cert", "a"}, "go together"},
		{with("--wan-gossip", ":0"), `--wan-gossip ":0"`},
		{with("--wan-gossip", "7000"), `--wan-gossip "7000"`},
		{with("--wan-gossip", ":http"), `--wan-gossip ":http"`},
		{with("--wan-gossip", ":70000"), `--wan-gossip ":70000"`},
		{with("--link-listen", "127.0.0.1:0"), `--link-listen "127.0.0.1:0"`},
		{with("--join-region", "a:1,b"), `--join-region "b"`},
		{with("--join-region", ":7947"), `--join-region ":7947"`},
		{with("--wan-gossip", ":7000", "--advertise-wan", ":7000"), `--advertise-wan ":7000"`},
		{with("--wan-gossip", ":7000", "--advertise-link", "a"), `--advertise-link "a"`},
		{[]string{"--advertise-link", "a:1"}, "--advertise-link is for a region that is linked"},
		{[]string{"--advertise-wan", "a:1"}, "--advertise-wan is for a region that is linked"},
		{[]string{"--link-secret", "f"}, "--link-secret is for a region that is linked"},
		{[]string{"--rights-timeout", "0"}, ""},
		{[]string{"--rights-timeout", "5s"}, ""},
		{[]string{"--rights-timeout", "5001ms"}, "--rights-timeout 5.001s is not within 0s and 5s"},
		{[]string{"--rights-timeout", "-1ms"}, "--rights-timeout -1ms"},
	} {
		config := parsed(t, nil, c.args...)
		err := config.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestAdvertisedLink(t *testing.T) {
	type links struct {
		All  string
		Only map[string]string
	}
	for in, want := range map[string]links{
		"":                             {},
		"eu-1:7422":                    {All: "eu-1:7422"},
		"us=a:1":                       {Only: map[string]string{"us": "a:1"}},
		"us=127.0.0.1:1,asia=[::1]:2":  {Only: map[string]string{"us": "127.0.0.1:1", "asia": "[::1]:2"}},
		"us=a:1,eu-1.example.com:7422": {All: "eu-1.example.com:7422", Only: map[string]string{"us": "a:1"}},
	} {
		all, only, err := (&Config{AdvertiseLink: in}).advertisedLink()
		if len(only) == 0 {
			only = nil
		}
		if d := cmp.Diff(want, links{all, only}); d != "" || err != nil {
			t.Errorf("%q: %v %s", in, err, d)
		}
	}
	for in, want := range map[string]string{
		"US=a:1":        "REGION must be",
		"=a:1":          "REGION must be",
		"us=a":          "want host:port",
		"us=a:0":        "want host:port",
		"us=:7422":      "want host:port",
		":7422":         "want host:port",
		"us=a:1,":       "want host:port",
		"us=a:1,us=b:1": "two addresses for the same region",
		"a:1,b:1":       "two addresses for the same region",
	} {
		if _, _, err := (&Config{AdvertiseLink: in}).advertisedLink(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

// What the flags say is what the cluster is told.
func TestMeshOfACluster(t *testing.T) {
	file := writeLinkSecrets(t, t.TempDir()+"/link.key", 'a')
	config := parsed(t, nil, "--insecure", "--wan-gossip", ":7000", "--link-listen", ":7001", "--join-region", "us-1:7000",
		"--advertise-wan", "eu-1:7000", "--advertise-link", "eu-1:7001,us=eu-1:7002", "--link-secret", file,
		"--gossip-key", "g", "--rights-timeout", "0s")
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.mesh()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{secretOf('a')}, m.Secrets()); d != "" {
		t.Error(d)
	}
	got := []any{m.WANGossip, m.AdvertiseWAN, m.JoinRegion, m.GossipKey, m.Link, m.AdvertiseLink, m.AdvertiseLinkTo, m.TLS == nil, m.RightsTimeout}
	want := []any{":7000", "eu-1:7000", []string{"us-1:7000"}, "g", ":7001", "eu-1:7001", map[string]string{"us": "eu-1:7002"}, true, time.Duration(0)}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLinkSecretMustBeThere(t *testing.T) {
	s, err := New(parsed(t, nil, "--insecure", "--wan-gossip", ":7000", "--link-secret", "nowhere.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.mesh(); err == nil || !strings.Contains(err.Error(), "nowhere.key") {
		t.Fatal(err)
	}
}
