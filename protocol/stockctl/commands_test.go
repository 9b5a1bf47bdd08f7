package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// ctl runs stockctl against the node and returns what it printed.
func ctl(t *testing.T, n *fakeNode, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"--endpoint", n.server.URL}, args...), &out, io.Discard)
	return out.String(), err
}

func mustCtl(t *testing.T, n *fakeNode, args ...string) string {
	t.Helper()
	out, err := ctl(t, n, args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

func TestCommands(t *testing.T) {
	n := newFakeNode(t)
	for _, step := range []struct{ args, want string }{
		{"count A1 40 --reference stock-take", "40"},
		{"adjust A1 -3 --reason damaged", "37"},
		{"adjust A1 -- -2", "35"},
		{"get A1 B", "35"},
		{"sell A1=5", "30"},
		{"reserve A1=2 --ttl 1m --user ada", "eu.r0  held until"},
		{"confirm eu.r0", "confirmed"},
		{"history A1", "stock-take"},
		{"history A1 --limit 1 --json", `"type":"confirm"`},
		{"get A1 --json", `"on_hand":28`},
		{"outcome nothing", "not known"},
		{"count A1 40 --if-version= --json", `"on_hand":40`},
		{"--help", "Usage"},
	} {
		if out := mustCtl(t, n, strings.Fields(step.args)...); !strings.Contains(out, step.want) {
			t.Errorf("%s: printed %q, want %q in it", step.args, out, step.want)
		}
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	n := newFakeNode(t)
	for _, step := range []struct{ args, want string }{
		{"sell A1=5", "A1 at main: 5 requested, 0 available"},
		{"confirm eu.none", "not_found"},
		{"sell A1", "want SKU=QUANTITY"},
		{"sell A1=x", "whole number"},
		{"count A1 many", "ON_HAND must be a whole number"},
		{"adjust A1 0", "delta"},
		{"configure A1", "at least one"},
	} {
		_, err := ctl(t, n, strings.Fields(step.args)...)
		if err == nil || !strings.Contains(explain(err), step.want) {
			t.Errorf("%s: error is %v, want %q in it", step.args, err, step.want)
		}
	}
}

func TestNoNodeThere(t *testing.T) {
	err := run(t.Context(), []string{"get", "A1", "--endpoint", "http://127.0.0.1:1"}, io.Discard, io.Discard)
	if err == nil || !strings.HasPrefix(explain(err), "cannot reach 127.0.0.1:1: is a node running there?") {
		t.Errorf("error is %v", err)
	}
}

func TestShieldNegative(t *testing.T) {
	for in, want := range map[string]string{
		"adjust A -3":             "adjust A -- -3",
		"adjust A -3 --reason x":  "adjust A --reason x -- -3",
		"adjust A 3":              "adjust A 3",
		"adjust A -- -3":          "adjust A -- -3",
		"count A -3":              "count A -3",
		"--json adjust A -3 -l x": "--json adjust A -l x -- -3",
	} {
		if got := strings.Join(shieldNegative(strings.Fields(in)), " "); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestParseLines(t *testing.T) {
	got, err := parseLines([]string{"A=1", "a=b=2", "BANK CHARGES=3"}, "x")
	want := []protocol.Line{{SKU: "A", Location: "x", Quantity: 1}, {SKU: "a=b", Location: "x", Quantity: 2}, {SKU: "BANK CHARGES", Location: "x", Quantity: 3}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// output is a buffer that tells when something was written.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.wrote <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

func (o *output) waitFor(t *testing.T, part string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		o.mu.Lock()
		found := strings.Contains(o.text.String(), part)
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-o.wrote:
		case <-late:
			t.Fatalf("never printed %q", part)
		}
	}
}

func TestWatch(t *testing.T) {
	n := newFakeNode(t)
	mustCtl(t, n, "count", "A1", "5")
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{wrote: make(chan struct{}, 1)}
	done := make(chan error)
	go func() { done <- run(ctx, []string{"watch", "A1", "--endpoint", n.server.URL}, out, io.Discard) }()
	out.waitFor(t, "A1 main available=5")
	mustCtl(t, n, "adjust", "A1", "2")
	out.waitFor(t, "A1 main available=7")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestLiveTable(t *testing.T) {
	var out bytes.Buffer
	show := (&app{out: &out}).liveTable(t.Context())
	item := func(sku string, n int64) protocol.Item {
		return protocol.Item{SKU: sku, Location: "main", Available: n, Version: "eu:1"}
	}
	for _, u := range []client.Update{
		{Items: []protocol.Item{item("B", 3), item("A", 5)}, Current: true},
		{Items: []protocol.Item{item("B", 4)}},
	} {
		out.Reset()
		if err := show(u); err != nil {
			t.Fatal(err)
		}
	}
	text := out.String()
	if a, b := strings.Index(text, "A    main"), strings.Index(text, "B    main      4"); a < 0 || b < a || !strings.Contains(text, "2 items, not connected") {
		t.Errorf("%s", text)
	}
}

func TestImportAppliesOnceAndKeepsRejects(t *testing.T) {
	n := newFakeNode(t)
	path := filepath.Join(t.TempDir(), "stock.csv")
	content := "\ufeffon_hand,sku,location\n5,A1,\n6,\"B, large\",store\nmany,C,\n1,A1,main\n-1,D,\n7,E\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := ctl(t, n, "import", path)
	if err == nil || !strings.Contains(out, "6 lines: 3 applied (0 of them by an earlier import), 3 rejected") {
		t.Fatalf("%s, %v", out, err)
	}
	rejects, err := os.ReadFile(path + ".rejects.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"4,\"on_hand must be a whole number", "5,the same item as in line 2", "6,bad_request"} {
		if !strings.Contains(string(rejects), want) {
			t.Errorf("rejects %s\nlack %s", rejects, want)
		}
	}
	mustCtl(t, n, "sell", "A1=2")
	out, _ = ctl(t, n, "import", path)
	if !strings.Contains(out, "3 of them by an earlier import") {
		t.Errorf("second import: %s", out)
	}
	if got := mustCtl(t, n, "get", "A1", "--json"); !strings.Contains(got, `"on_hand":3`) {
		t.Errorf("after the second import: %s", got)
	}
}

func TestImportSurvivesLostConnections(t *testing.T) {
	n := newFakeNode(t)
	n.afterWrite = func(i int) bool { return i%40 == 7 }
	path := filepath.Join(t.TempDir(), "stock.csv")
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "sku-%d,main,%d\n", i, i)
	}
	os.WriteFile(path, []byte(b.String()), 0o600)
	if out := mustCtl(t, n, "import", path); !strings.Contains(out, "300 applied") {
		t.Errorf("%s", out)
	}
	for k, h := range n.history {
		if len(h) != 1 {
			t.Errorf("%s was counted %d times", k.SKU, len(h))
		}
	}
}

func TestInterruptedImportLosesNothing(t *testing.T) {
	n := newFakeNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	n.afterWrite = func(i int) bool {
		if i == 10 {
			cancel()
		}
		return i == 10
	}
	path := filepath.Join(t.TempDir(), "stock.csv")
	os.WriteFile(path, []byte("sku,main,1\n"+"A,main,1\nB,main,2\n"+manyLines(200)), 0o600)
	err := run(ctx, []string{"import", path, "--in-flight", "4", "--endpoint", n.server.URL}, io.Discard, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	rejects, _ := os.ReadFile(path + ".rejects.csv")
	n.mu.Lock() // what was on its way is still being handled
	items := len(n.items)
	n.afterWrite = nil
	n.mu.Unlock()
	if got := strings.Count(string(rejects), "import the file again") + items; got < 203 {
		t.Errorf("%d lines are accounted for", got)
	}
	if out := mustCtl(t, n, "import", path); !strings.Contains(out, "203 applied") {
		t.Error(out)
	}
	if _, err := os.Stat(path + ".rejects.csv"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old rejects stay: %v", err)
	}
}

func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "s-%d,main,%d\n", i, i)
	}
	return b.String()
}

func TestReadImport(t *testing.T) {
	lines := readImport([]byte("A,main,1\nB,,2\nC,3\n\"bad\"x,main,4\nD,main,5\n"))
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l.number, " ", l.sku, " ", l.location, " ", l.onHand, " ", l.err != nil))
	}
	want := []string{"1 A main 1 false", "2 B main 2 false", "3   0 true", "4   0 true", "5 D main 5 false"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestExportIsWhatImportReads(t *testing.T) {
	n, other := newFakeNode(t), newFakeNode(t)
	for i := range 8 {
		mustCtl(t, n, "count", fmt.Sprint("sku ", i), fmt.Sprint(i*10), "-l", "store, north")
	}
	path := filepath.Join(t.TempDir(), "out.csv")
	mustCtl(t, n, "export", path)
	mustCtl(t, other, "import", path)
	if a, b := mustCtl(t, n, "export"), mustCtl(t, other, "export"); a != b || strings.Count(a, "\n") != 9 {
		t.Errorf("exported\n%s\nafter import\n%s", a, b)
	}
	if out := mustCtl(t, n, "export", "--prefix", "sku 3", "--json"); strings.Count(out, "\n") != 1 {
		t.Errorf("one item: %s", out)
	}
}

func TestVerify(t *testing.T) {
	n := newFakeNode(t)
	for i := range 7 {
		mustCtl(t, n, "count", fmt.Sprint("A", i), "10")
		mustCtl(t, n, "sell", fmt.Sprintf("A%d=3", i))
	}
	if out := mustCtl(t, n, "verify"); !strings.Contains(out, "7 items, 14 movements, 0 busy") {
		t.Error(out)
	}
	if out := mustCtl(t, n, "verify", "--depth", "1", "--json"); !strings.Contains(out, `"differences":[]`) {
		t.Error(out)
	}
	n.mu.Lock()
	n.items[protocol.ItemKey{SKU: "A3", Location: "main"}].OnHand++
	n.mu.Unlock()
	out, err := ctl(t, n, "verify")
	if err == nil || !strings.Contains(out, "A3 at main: on_hand 8, reserved 0, but the newest movements say 7 and 0") {
		t.Errorf("%s, %v", out, err)
	}
}
