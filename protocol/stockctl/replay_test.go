package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

const sampleFile = "testdata/online-retail-2011-11-21.csv.gz"

// sample writes a small recording that has every kind of invoice.
func sample(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("invoiced_at,invoice,sku,quantity\n")
	for i := range 210 {
		at := time.Date(2011, 11, 21, 8, i, 0, 0, time.UTC).Format(time.DateTime)
		fmt.Fprintf(&b, "%s,%d,SKU %d,%d\n%s,%d,hot,1\n", at, i, i%7, i%3+1, at, i)
		if i%10 == 9 {
			fmt.Fprintf(&b, "%s,C%d,hot,-2\n", at, i)
		}
	}
	for i := range 230 { // one invoice of three parts
		fmt.Fprintf(&b, "2011-11-21 10:00:00,big,wide %d,5\n", i)
	}
	path := filepath.Join(t.TempDir(), "sales.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func replaySample(t *testing.T, n *fakeNode, args ...string) (replaySummary, error) {
	t.Helper()
	out, err := ctl(t, n, append([]string{"replay", sample(t), "--json", "--clients", "8", "--watchers", "2", "--short-ttl", "1s"}, args...)...)
	var sum replaySummary
	if out != "" {
		if bad := protocol.UnmarshalJSON([]byte(out), &sum); bad != nil {
			t.Fatalf("%s: %v", out, bad)
		}
	}
	return sum, err
}

func TestReplayAddsUp(t *testing.T) {
	n := newFakeNode(t)
	mustCtl(t, n, "count", "hot", "7") // data of another time
	sum, err := replaySample(t, n)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Invoices != 232 || sum.Sold == 0 || sum.Refused == 0 || sum.Released == 0 || sum.Expired == 0 || sum.Returns != 21 || sum.Samples == 0 {
		t.Errorf("%+v", sum)
	}
	if sum.Sold+sum.Refused+sum.Released+sum.Expired != 211 {
		t.Errorf("invoices are lost: %+v", sum)
	}
}

func TestReplayCarriesOnOverLostConnections(t *testing.T) {
	n := newFakeNode(t)
	n.afterWrite = func(i int) bool { return i%100 == 99 }
	sum, err := replaySample(t, n)
	if err != nil || sum.Reconnects == 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestReplayUnderTheSameNameDoesNothingTwice(t *testing.T) {
	n := newFakeNode(t)
	first, err := replaySample(t, n, "--run", "again", "--opening", "1.5")
	if err != nil {
		t.Fatal(err)
	}
	before := mustCtl(t, n, "export")
	second, err := replaySample(t, n, "--run", "again", "--opening", "1.5")
	if err != nil || mustCtl(t, n, "export") != before {
		t.Errorf("second run: %+v, %v", second, err)
	}
	if d := cmp.Diff(first.Counts, second.Counts); d != "" {
		t.Error(d)
	}
}

func TestReplayFindsALostMovement(t *testing.T) {
	n := newFakeNode(t)
	n.forget = func(m protocol.Movement) bool { return m.Type == "confirm" && m.Reference == "5" && m.SKU == "hot" }
	sum, err := replaySample(t, n, "--settle", "2s")
	if err == nil || sum.Total != 1 || !strings.Contains(sum.Differences[0], ":5:confirm:0") {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestReplayOptions(t *testing.T) {
	for _, flag := range []string{"--clients=0", "--watchers=-1", "--opening=-1", "--run=" + strings.Repeat("x", 65)} {
		if err := run(t.Context(), []string{"replay", sampleFile, flag}, io.Discard, io.Discard); err == nil {
			t.Errorf("%s was taken", flag)
		}
	}
}
