package helm_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
	"sigs.k8s.io/yaml"
)

// The options in the page's example are options of the node.
func TestOperationsExample(t *testing.T) {
	page, err := os.ReadFile("OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	var options map[string]any
	if err := yaml.UnmarshalStrict([]byte(example), &options); err != nil || len(options) == 0 {
		t.Fatalf("%v in\n%s", err, example)
	}
	config, flags := server.Default(), pflag.NewFlagSet("node", pflag.ContinueOnError)
	config.Bind(flags)
	for name := range options {
		if flags.Lookup(name) == nil {
			t.Errorf("%s is no option of the node", name)
		}
	}
}

// Links lead somewhere: to a file, or to a heading of the page.
func TestOperationsLinks(t *testing.T) {
	page, err := os.ReadFile("OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := make(map[string]bool)
	for _, h := range regexp.MustCompile(`(?m)^##+ (.+)$`).FindAllStringSubmatch(string(page), -1) {
		headings["#"+strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(page), -1)
	if len(links) < 10 {
		t.Errorf("%d links: the pattern finds too few", len(links))
	}
	for _, link := range links {
		if file, _, _ := strings.Cut(link[1], "#"); file == "" && !headings[link[1]] {
			t.Errorf("%s leads to no heading", link[1])
		} else if file != "" {
			if _, err := os.Stat(file); err != nil {
				t.Error(err)
			}
		}
	}
}
