package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// optionSet is the flags of a node, bound to c.
func optionSet(c *Config) *pflag.FlagSet {
	f := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(f)
	return f
}

// No option may have a variable that others use: it would be taken for theirs.
func TestVariablesOfOptionsAreOurs(t *testing.T) {
	c := Default()
	for _, o := range Options(optionSet(&c)) {
		if ofOthers(o.Variable) {
			t.Errorf("%s is a variable of others", o.Variable)
		}
	}
}

// Each option says what zero or empty means, unless it is refused.
func TestUsageTellsOfZero(t *testing.T) {
	zeros := map[string]string{"int": "0", "float64": "0", "duration": "0s", "string": "", "stringSlice": ""}
	for _, o := range Options(optionSet(new(Config))) {
		c := Default()
		c.Expect, c.Mesh, c.Insecure = 3, true, true // so that all of it is looked at
		f := optionSet(&c)
		flag := f.Lookup(strings.TrimPrefix(o.Flag, "--"))
		zero, has := zeros[flag.Value.Type()]
		if !has {
			continue
		}
		if err := f.Set(flag.Name, zero); err != nil {
			t.Fatal(err)
		}
		told := strings.Contains(o.Usage, "empty") || strings.Contains(o.Usage, "(0")
		if err := c.Validate(); err == nil && !told {
			t.Errorf("%s %q is allowed, and its usage doesn't say what it means: %s", o.Flag, zero, o.Usage)
		}
	}
}

func TestObservedIsChecked(t *testing.T) {
	for want, tune := range map[string]func(*Config){
		`--metrics "8082": want host:port`:                      func(c *Config) { c.Metrics = "8082" },
		"--trace-ratio 1.1: want 0 to 1":                        func(c *Config) { c.TraceRatio = 1.1 },
		`--log-format "xml": want text or json`:                 func(c *Config) { c.LogFormat = "xml" },
		`--log-level "loud": want debug, info, warn or error`:   func(c *Config) { c.LogLevel = "loud" },
		"--trace-endpoint: want http://host:port or":            func(c *Config) { c.TraceEndpoint = "127.0.0.1:4318" },
		"--trace-endpoint: want no user, password or query":     func(c *Config) { c.TraceEndpoint = "https://me:sesame@traces:4318" },
		"--trace-endpoint: want no user, password or query in ": func(c *Config) { c.TraceEndpoint = "https://traces:4318/?key=sesame" },
	} {
		c := Default()
		tune(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	c := Default()
	// It may be open to the network, without keys and without --insecure.
	c.Metrics, c.TraceEndpoint, c.TraceRatio = "0.0.0.0:8082", "https://traces.example/v1/traces", 0
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// A password is a secret also where it makes the URL one that can't be read.
func TestNoSecretIsShown(t *testing.T) {
	for given, want := range map[string]string{
		"https://keys.example/jwks":           "https://keys.example/jwks",
		"https://me:sesame@keys.example/jwks": "https://keys.example/jwks",
		"https://keys.example/?key=sesame":    "https://keys.example/",
		"https://keys.example/#sesame":        "https://keys.example/",
		"https://me:%zsesame@keys":            "https://...",
		"https://me:sesame word@keys":         "https://...",
		"https://ke:ys/?key=sesame":           "https://...",
		"https://me:1#sesame@keys":            "https://...",
		"https://me:1?sesame@keys":            "https://...",
		"https://me:1/sesame@keys":            "https://...",
		"https:///?key=sesame":                "https://...",
		"sesame://%zz":                        "...",
		"https:/me:sesame@keys":               "...",
		"//me:%zsesame@keys":                  "...",
		"me:sesame@keys:4318":                 "...",
		"sesame@keys:4318":                    "...",
		"keys.example/jwks?key=sesame":        "...",
		"127.0.0.1:4318":                      "127.0.0.1:4318", // wrong, but whoever asks may look for that
		"/etc/keys@1.json":                    "/etc/keys@1.json",
		"./keys#1.json":                       "./keys#1.json",
		"":                                    "",
	} {
		if shown, hidden := withoutSecret(given, true); shown != want || hidden != (given != want) {
			t.Errorf("%s: %s, hidden: %v", given, shown, hidden)
		}
	}
	for _, given := range []string{"data@1", "stock@keys.example", "https://id.example/@stock", "/data dir #1"} {
		if shown, hidden := withoutSecret(given, false); shown != given || hidden {
			t.Errorf("%s, of an option that wants no URL: %s, hidden: %v", given, shown, hidden)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"max-connections", "max-connections-per-ip", "join", "region", "name"}
	for name, want := range map[string]string{
		"max_connections": ", did you mean max-connections?",
		"MaxConnections":  ", did you mean max-connections?",
		"regoin":          ", did you mean region?",
		"names":           ", did you mean name?",
		"something":       "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Whatever a file holds: an answer soon, and either options that flags take or a line
// that says where it is wrong.
func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{
		"region: eu\nmax-connections: 5\njoin: [a, b]\ndrain: 5s\ninsecure: true\ntrace-ratio: 0.5\n",
		"a:\n  b: c", "join:\n- a\n# c\n- b", "? a\n: b", "{region: eu}", "region: 'x\n  y'", "\xff\xfe", "\ufeffregion: eu", "%YAML 1.2\n---\nregion: eu",
	} {
		f.Add(s)
	}
	kinds := make(map[string]string)
	c := Default()
	optionSet(&c).VisitAll(func(flag *pflag.Flag) { kinds[flag.Name] = flag.Value.Type() })
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		settings, err := parseOptions("f", []byte(text), kinds)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		for _, line := range Lines(err) {
			if !strings.HasPrefix(line, "f:") {
				t.Errorf("no line in %q", line)
			}
		}
		c := Default()
		flags := optionSet(&c)
		var names []string
		for _, s := range settings {
			if slices.Contains(names, s.name) || s.line < 1 {
				t.Errorf("%+v", s)
			}
			names = append(names, s.name)
			if err := flags.Set(s.name, s.value); err != nil && flags.Lookup(s.name).Value.Type() != "stringSlice" {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}
