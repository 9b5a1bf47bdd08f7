package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// metricsPage lists every metric. Its first four columns are written by
// `go test ./node/server -run MetricsPage -update`, the last one by hand.
const metricsPage = "../METRICS.md"

var update = flag.Bool("update", false, "write the generated parts of documents")

// figure is a row of the page.
type figure struct{ name, kind, labels, help, look string }

func (f figure) row() string {
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |", f.name, f.kind, f.labels, f.help, f.look)
}

// fullNode starts a node with everything that brings metrics of its own.
func fullNode(t *testing.T) *Server {
	t.Helper()
	dir, addrs := t.TempDir(), loopback.Addresses(t, 2)
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Data, c.Listen, c.Admin, c.Region = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", "eu"
	c.JWKS, c.RateLimitPerUser = filepath.Join(dir, "jwks.json"), 1000
	c.Insecure, c.WANGossip, c.LinkListen = true, addrs[0], addrs[1]
	c.TraceEndpoint = "http://127.0.0.1:9" // nobody is there
	// The program's own logger counts these.
	c.LogDropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_log_lines_dropped_total", Help: "Lines left out of the log, as there were more than --log-burst like them within 10 s.",
	}, []string{"level"})
	jwks := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(key))
	if err := os.WriteFile(c.JWKS, []byte(jwks), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

var descText = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// figures are the metrics that a node registered, by name. The library tells of a metric
// without a series only by a text.
func figures(t *testing.T, r *prometheus.Registry) map[string]figure {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]string)
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.Describe(descs)
	}()
	found := make(map[string]figure)
	for d := range descs {
		m := descText.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("the library describes metrics in another way: %s", d)
			continue
		}
		f := figure{name: unquote(t, m[1]), help: unquote(t, m[2]), labels: labelNames(m[3], m[4])}
		if !strings.HasPrefix(f.name, "stockmesh_") {
			continue // of the Go runtime, the process and the library
		}
		f.kind = kinds[f.name]
		found[f.name] = f
	}
	return found
}

// labelNames lists constant labels, told as name="value", and variable ones.
func labelNames(constant, variable string) string {
	var names []string
	for _, m := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(constant, -1) {
		names = append(names, m[1])
	}
	for name := range strings.FieldsFuncSeq(variable, func(c rune) bool { return c == ',' || c == ' ' }) {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func unquote(t *testing.T, quoted string) string {
	t.Helper()
	s, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kindOf is what a metric without a series must be, by the rules for names.
func kindOf(name string) string {
	switch {
	case strings.HasSuffix(name, "_total"):
		return "counter"
	case name == "stockmesh_command_seconds", strings.HasSuffix(name, "_duration_seconds"):
		return "histogram"
	}
	return "gauge"
}

func parseRow(line string) (f figure, ok bool) {
	cells := strings.Split(line, "|")
	if len(cells) != 7 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`stockmesh_") {
		return figure{}, false
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return figure{strings.Trim(cells[1], "`"), cells[2], cells[3], cells[4], cells[5]}, true
}

// The page has a row for every metric of a node, and no other.
func TestMetricsPage(t *testing.T) {
	have := figures(t, fullNode(t).registry)
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	missing := maps.Clone(have)
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSuffix(line, "\n")
		row, isRow := parseRow(line)
		want, exists := have[row.name]
		switch {
		case !isRow:
		case !exists:
			t.Errorf("%s: no node has this metric", row.name)
			continue
		default:
			if want.kind == "" {
				want.kind = kindOf(row.name)
			}
			want.look = row.look
			if _, first := missing[row.name]; !first || row != want || row.look == "" {
				t.Errorf("the row of %s is\n%s\nwant, once, and with what to look for:\n%s", row.name, line, want.row())
			}
			line = want.row()
			delete(missing, row.name)
		}
		lines = append(lines, line)
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		f := missing[name]
		if f.kind == "" {
			f.kind = kindOf(name)
		}
		t.Errorf("no row for %s", name)
		lines = append(lines, f.row())
	}
	if *update {
		if err := os.WriteFile(metricsPage, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Log("written; what it was before is told above")
	}
}
