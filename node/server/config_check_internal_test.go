package server

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// found is what Check finds, without the names of directories.
func found(t *testing.T, c Config, dirs ...string) Findings {
	t.Helper()
	f := c.Check(t.Context())
	for _, list := range [][]string{f.Problems, f.Warnings} {
		for i := range list {
			for _, dir := range dirs {
				list[i] = strings.ReplaceAll(list[i], dir, "DIR")
			}
		}
	}
	return f
}

// usual is a node's configuration that nothing is wrong with.
func usual(t *testing.T) Config {
	t.Helper()
	c := Default()
	c.Data, c.Region, c.Name = filepath.Join(t.TempDir(), "data"), "eu", "eu-1"
	return c
}

func TestCheckFindsNothing(t *testing.T) {
	c := usual(t)
	if d := cmp.Diff(Findings{}, found(t, c)); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(c.Data); err == nil {
		t.Error("it made the data directory")
	}
}

// Everything is told at once: values, files, directories, names.
func TestCheckFindsEverything(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := usual(t)
	c.Data = dir
	c.Drain, c.Expect = -time.Second, 3
	c.JWKS, c.GossipKey, c.LinkSecret = broken, broken, broken
	c.TLSCert, c.TLSKey = filepath.Join(dir, "none.pem"), broken
	c.MeshCert, c.MeshKey, c.MeshCA = broken, broken, broken
	c.JoinRegion = []string{"no-such-host.invalid:7947"}
	c.Metrics = "0.0.0.0:8081"
	c.Admin = "no-such-host.invalid:8083"
	c.TraceEndpoint = "http://no-such-host.invalid:4318"
	f := found(t, c, dir)
	problems, warnings := strings.Join(f.Problems, "\n"), strings.Join(f.Warnings, "\n")
	for _, want := range []string{
		"--drain -1s is negative",
		"--tls-cert: TLS: stat DIR/none.pem: no such file or directory",
		"--mesh-cert: TLS certificate DIR/broken: tls: failed to find any PEM data",
		"--mesh-ca: DIR/broken: no certificate in it",
		"gossip key: DIR/broken: line 1 is not base64",
		"--link-secret: link secret: DIR/broken: line 1 is no key",
		"--jwks: token keys: ",
		`data directory DIR holds "broken" but no stockmesh.json`,
		"--admin: lookup no-such-host.invalid",
	} {
		if !strings.Contains(problems, want) {
			t.Errorf("no %q among the problems\n%s", want, problems)
		}
	}
	for _, want := range []string{"--join-region: lookup no-such-host.invalid", "--trace-endpoint: lookup no-such-host.invalid", "tokens come to --admin in the clear"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no %q among the warnings\n%s", want, warnings)
		}
	}
	if strings.Contains(problems+warnings, "sesame") {
		t.Error("a secret is told")
	}
}

// The certificate of a node is looked at as the other nodes will.
func TestCheckOfMeshCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	secret := filepath.Join(ca.dir, "secret")
	if err := os.WriteFile(secret, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]struct{ problem, warning string }{
		"stockmesh://eu/eu-1": {"", "--mesh-cert: DIR/"}, // it expires soon
		"stockmesh://us/eu-1": {`--mesh-cert: it is for region "us", not "eu"`, ""},
		"stockmesh://eu/eu-2": {"", `--mesh-cert: it names node "eu-2", this is "eu-1"`},
		"https://eu/eu-1":     {"--mesh-cert: other nodes won't take it: the other node's certificate names 0 nodes", ""},
	} {
		c := usual(t)
		tls := ca.server(t, "eu", uri).config
		c.Mesh, c.MeshCert, c.MeshKey, c.MeshCA, c.GossipKey, c.LinkSecret = true, tls.MeshCert, tls.MeshKey, tls.MeshCA, secret, secret
		f := found(t, c, ca.dir)
		if problems := strings.Join(f.Problems, "\n"); (problems == "") != (want.problem == "") || !strings.Contains(problems, want.problem) {
			t.Errorf("%s: %s", uri, problems)
		}
		if warnings := strings.Join(f.Warnings, "\n"); !strings.Contains(warnings, want.warning) || !strings.Contains(warnings, ": expires at ") {
			t.Errorf("%s: %s", uri, warnings)
		}
		c.MeshCA, c.AdvertiseLink = filepath.Join(other.dir, "ca.pem"), "localhost:1,us=127.0.0.1:1"
		if w := strings.Join(found(t, c).Warnings, "\n"); !strings.Contains(w, "--advertise-link sends others to 127.0.0.1") || strings.Contains(w, "sends others to localhost") {
			t.Errorf("%s: hosts: %s", uri, w)
		}
		if f := found(t, c); !strings.Contains(strings.Join(f.Problems, "\n"), "--mesh-cert: other nodes won't take it: x509: ") {
			t.Errorf("%s: another CA: %v", uri, f.Problems)
		}
	}
}

func TestCheckOfListeners(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true}, {"127.0.0.1:1", "127.0.0.2:1", false}, {":1", "127.0.0.2:1", true},
		{"0.0.0.0:1", "127.0.0.2:1", true}, {"127.0.0.1:1", "[::]:1", true}, {"127.0.0.1:1", "127.0.0.1:2", false}, {"127.0.0.1:0", "127.0.0.1:0", false}, {"", "", false},
	} {
		if sameDoor(c.a, c.b) != c.same || sameDoor(c.b, c.a) != c.same {
			t.Errorf("%s and %s", c.a, c.b)
		}
	}
	c := usual(t)
	c.Metrics = c.Admin
	if d := cmp.Diff([]string{"--admin and --metrics are both 127.0.0.1:8081"}, found(t, c).Problems); d != "" {
		t.Error(d)
	}
}

// What a node warns of when it starts.
func TestWarnings(t *testing.T) {
	for want, tune := range map[string]func(*Config){
		"clients are not authenticated":             func(c *Config) { c.Insecure = true },
		"tokens come to --listen in the clear":      func(c *Config) { c.JWKS, c.Listen = "k", ":8080" },
		"any token signed with the keys":            func(c *Config) { c.JWKS, c.JWTIssuer = "k", "me" },
		"tokens come to --admin in the clear":       func(c *Config) { c.JWKS, c.Admin = "k", "0.0.0.0:8081" },
		"membership is not encrypted":               func(c *Config) { c.Expect = 3 },
		"membership between regions is not":         func(c *Config) { c.Mesh = true },
		"don't show each other certificates: whoev": func(c *Config) { c.Mesh, c.Insecure = true, true },
	} {
		c := Default()
		tune(&c)
		if list := strings.Join(c.Warnings(), "\n"); !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if c := Default(); len(c.Warnings()) > 0 {
		t.Errorf("the defaults: %q", c.Warnings())
	}
}
