package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/server"
)

var update = flag.Bool("update", false, "write the README's tables of options instead of comparing them")

const (
	readme       = "README.md"
	optionsBegin = "<!-- options -->\n"
	optionsEnd   = "<!-- /options -->\n"
)

// optionTables is every option as the README shows it.
func optionTables() string {
	var b strings.Builder
	group := ""
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	for _, o := range server.Options(newApp(nil, nil, nil).options) {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(&b, "\n### %s\n\n| flag | environment | default | unit and meaning |\n|---|---|---|---|\n", group)
		}
		shown := o.Default
		if shown != "" {
			shown = "`" + shown + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", strings.TrimSpace(o.Flag+" "+o.Value), o.Variable, shown, cell(o.Usage))
	}
	return b.String() + "\n"
}

// readReadme returns the README, and its parts around the tables.
func readReadme(t *testing.T) (text, before, tables, after string) {
	t.Helper()
	b, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(b), optionsBegin)
	tables, after, ended := strings.Cut(rest, optionsEnd)
	if !begun || !ended {
		t.Fatalf("%s has no %s and %s", readme, strings.TrimSpace(optionsBegin), strings.TrimSpace(optionsEnd))
	}
	return string(b), before, tables, after
}

// The README's tables are what the code says. `go test ./node -run Options -update`
// writes them.
func TestOptionsOfTheReadme(t *testing.T) {
	_, before, tables, after := readReadme(t)
	want := optionTables()
	if *update {
		if err := os.WriteFile(readme, []byte(before+optionsBegin+want+optionsEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, tables); d != "" {
		t.Errorf("the README differs from the code; go test ./node -run Options -update writes it:\n%s", d)
	}
}

// The README's example is one.
func TestExampleOfTheReadme(t *testing.T) {
	text, _, _, _ := readReadme(t)
	_, rest, _ := strings.Cut(text, "```yaml\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the README has no example")
	}
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newApp([]string{"STOCKMESH_CONFIG=" + file}, nil, nil)
	origins, err := a.read()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.config.Validate(); err != nil {
		t.Error(err)
	}
	if len(origins) < 10 || a.config.Name != "eu-1" || len(a.config.Join) != 2 {
		t.Errorf("got %v", origins)
	}
}
