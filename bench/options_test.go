package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		args     string
		spawn    string
		rounds   int
		duration time.Duration
	}{
		{"hot-sku", "1", 3, 10 * time.Second},
		{"hot-sku --short", "1", 1, 2 * time.Second},
		{"--short fanout --rounds 2 --duration 1s", "1", 2, time.Second},
		{"hot-sku --spawn 1x3", "3", 3, 10 * time.Second},
		{"hot-sku --spawn 3x1", "3x1", 3, 10 * time.Second},
		{"cut", "3x1", 1, 10 * time.Second},
		{"cut --spawn 2x3 --cut us --short", "2x3", 1, 2 * time.Second},
		{"mesh --spawn 2x1 --rounds 2", "2x1", 2, 10 * time.Second},
		{"failover --spawn 2x3", "2x3", 1, 10 * time.Second},
		{"failover", "3", 1, 10 * time.Second},
		{"drain --spawn 5 --rounds 2 --short", "5", 2, 2 * time.Second},
		{"connections", "1", 3, 30 * time.Second},
		{"connections --short", "1", 1, 2 * time.Second},
		{"replay", "1", 1, 10 * time.Second},
		{"storm", "1", 3, 10 * time.Second},
		{"stalled", "1", 1, 10 * time.Second},
		{"abuse", "1", 1, 20 * time.Second},
		{"abuse --short", "1", 1, 6 * time.Second},
		{"abuse --short --duration 1h", "1", 1, time.Hour},
		{"hot-sku --endpoints ws://a:1/v1/ws,ws://b:1/v1/ws", "", 3, 10 * time.Second},
	} {
		o, err := parseOptions(strings.Fields(c.args), nil)
		if err != nil || o.spawn != c.spawn || o.rounds != c.rounds || o.duration != c.duration {
			t.Errorf("%s: %+v, %v", c.args, o, err)
		}
	}
}

func TestCounts(t *testing.T) {
	for args, want := range map[string]int{
		"connections": 18000, "connections --tls": 9000, "connections --tls --count 7": 7,
		"storm": 10000, "storm --tls": 10000, "storm --count 5": 5,
	} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || o.count != want {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
	for args, want := range map[string]int{"drain": 10000, "drain --short": 1000, "drain --short --watchers 0": 0} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || o.watchers != want {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
}

func TestRateOfAScenario(t *testing.T) {
	for args, want := range map[string]int{"cut": 2000, "mesh": 20000, "mesh --rate 50": 50, "failover": 2000, "stalled": 20, "abuse": 200} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || o.rate != want {
			t.Errorf("%s: %+v, %v", args, o, err)
		}
	}
}

func TestSevered(t *testing.T) {
	for args, want := range map[string][]int{"cut": {2}, "cut --cut eu": {0}, "cut --spawn 2x1 --cut all": {0, 1}} {
		o, err := parseOptions(strings.Fields(args), nil)
		if err != nil || !slices.Equal(o.severed(), want) {
			t.Errorf("%s: %v, want %v; %v", args, o.severed(), want, err)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for args, want := range map[string]string{
		"":                                      strings.Join(scenarioNames(), ", "),
		"cold-sku":                              "no scenario",
		"hot-sku fanout":                        "one scenario",
		"hot-sku --nonsense":                    "--help",
		"hot-sku --spawn 2":                     "1, 3 or 5",
		"hot-sku --spawn 1x2":                   "1, 3 or 5",
		"hot-sku --spawn 6x1":                   "2 to 5 regions",
		"hot-sku --spawn 0x1":                   "2 to 5 regions",
		"hot-sku --spawn x":                     "2 to 5 regions",
		"hot-sku --spawn 2x1x1":                 "2 to 5 regions",
		"cut --spawn 3":                         "--spawn 3x1",
		"cut --endpoints ws://a":                "mesh of its own",
		"cut --spawn 2x1 --cut asia":            "eu, us",
		"mesh --spawn 1":                        "--spawn 3x1",
		"failover --spawn 3x1":                  "--spawn 3",
		"failover --spawn 1":                    "--spawn 3",
		"drain --endpoints ws://a":              "--spawn 3",
		"drain --profile .":                     "--profile",
		"failover --kills 0":                    "--kills",
		"failover --every 1ms":                  "--every",
		"failover --rate 0":                     "--rate",
		"hot-sku --depth 300":                   "--depth 300: want 1 to 256",
		"hot-sku --rounds 0":                    "--rounds",
		"hot-sku --duration 4h":                 "--duration",
		"hot-sku --tls":                         "--tls",
		"fanout --grants":                       "--grants",
		"hot-sku --grants --spawn 3":            "--spawn 1",
		"fanout --observed":                     "--observed",
		"hot-sku --observed --spawn 3":          "--spawn 1",
		"hot-sku --observed --grants":           "no --grants",
		"hot-sku --observed --endpoints ws://a": "of its own",
		"storm --endpoints ws://a":              "node",
		"replay --kills 1":                      "--spawn 3",
		"replay --rate -1":                      "--rate",
		"replay --file nowhere.csv":             "--file",
		"drain --over 1ms":                      "--over",
		"drain --watchers -1":                   "--watchers",
		"abuse --attacks kindness":              "random frames",
		"fanout --burst 257":                    "--burst",
		"fanout --endpoints http:x":             "--endpoints",
		"fanout --endpoints ws://a --profile .": "--profile",
		"fanout --spawn 1 --endpoints ws://127.0.0.1/v1/ws": "exclude",
	} {
		if _, err := parseOptions(strings.Fields(args), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseOptions([]string{"--help"}, &out); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	for _, want := range append(scenarioNames(), "--json FILE", "--endpoints", "Examples:") {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the help", want)
		}
	}
}
