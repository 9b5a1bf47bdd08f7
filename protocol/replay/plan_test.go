package replay

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stockmesh/stockmesh/protocol"
)

// sampleFile is what stockctl's example plays.
const sampleFile = "../stockctl/testdata/online-retail-2011-11-21.csv.gz"

func TestPlanOfTheSample(t *testing.T) {
	f, err := os.Open(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := ReadPlan(f, Shape{Share: 0.8})
	if err != nil {
		t.Fatal(err)
	}
	fates := map[fate]int{}
	returns := 0
	for i, v := range p.invoices {
		if i > 0 && v.at.Before(p.invoices[i-1].at) {
			t.Errorf("invoice %s is out of order", v.id)
		}
		returns += len(v.returns)
		if len(v.sales) > 0 {
			fates[v.fate]++
		}
	}
	if len(p.invoices) != 2210 || len(p.skus) != 2816 || returns == 0 {
		t.Errorf("%d invoices, %d SKUs, %d returned lines", len(p.invoices), len(p.skus), returns)
	}
	if d := cmp.Diff(map[fate]int{toSell: 1748, toRelease: 75, toExpire: 37}, fates); d != "" {
		t.Error(d)
	}
	if p.opening["POST"] == 0 || p.skus[len(p.skus)-1] != "gift_0001_10" {
		t.Errorf("opening of POST %d, last SKU %s", p.opening["POST"], p.skus[len(p.skus)-1])
	}
}

func TestPlanSumsLinesAndRounds(t *testing.T) {
	p, err := ReadPlan(strings.NewReader(`invoice,invoiced_at,sku,quantity,customer
2,2011-11-21 09:00:00,A,1,x
1,2011-11-21 08:00:00,A,3,
1,2011-11-21 08:00:00,BANK CHARGES,2,
1,2011-11-21 08:00:00,A,4,
C3,2011-11-21 10:00:00,A,-2,
C3,2011-11-21 10:00:00,D,-1,
`), Shape{Share: 0.8})
	if err != nil {
		t.Fatal(err)
	}
	main := func(sku string, n int64) protocol.Line {
		return protocol.Line{SKU: sku, Location: "main", Quantity: n}
	}
	at := func(hour int) time.Time { return time.Date(2011, 11, 21, hour, 0, 0, 0, time.UTC) }
	want := []invoice{
		{id: "1", at: at(8), sales: []protocol.Line{main("A", 7), main("BANK CHARGES", 2)}},
		{id: "2", at: at(9), sales: []protocol.Line{main("A", 1)}},
		{id: "C3", at: at(10), returns: []protocol.Line{main("A", 2), main("D", 1)}},
	}
	if d := cmp.Diff(want, p.invoices, cmp.AllowUnexported(invoice{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int64{"A": 6, "BANK CHARGES": 2, "D": 0}, p.opening); d != "" {
		t.Error(d)
	}
}

func TestShape(t *testing.T) {
	f, err := os.Open(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := ReadPlan(f, Shape{Share: 1, Invoices: 30, Prefix: "x-"})
	if err != nil {
		t.Fatal(err)
	}
	sold := map[string]int64{}
	lines := 0
	for _, v := range p.invoices {
		lines += len(v.sales) + len(v.returns)
		for _, l := range v.returns {
			sold[l.SKU] += 0
		}
		for _, l := range v.sales {
			sold[l.SKU] += l.Quantity
		}
	}
	if p.Invoices() != 30 || p.Lines() != lines || len(p.skus) != len(p.opening) {
		t.Errorf("%d invoices, %d lines of %d, %d SKUs", p.Invoices(), p.Lines(), lines, len(p.skus))
	}
	if d := cmp.Diff(sold, p.opening); d != "" {
		t.Error(d)
	}
	for _, sku := range p.skus {
		if !strings.HasPrefix(sku, "x-") {
			t.Errorf("%s", sku)
		}
	}
	if d := cmp.Diff(protocol.Selector{Prefixes: []string{"x-"}}, p.selector()); d != "" {
		t.Error(d)
	}
}

func TestPlanErrorsNameTheLine(t *testing.T) {
	head := "invoiced_at,invoice,sku,quantity\n2011-11-21 08:00:00,1,A,1\n"
	for in, want := range map[string]string{
		"":                                      "no header",
		"a,b\n":                                 "no column invoiced_at",
		head + "2011-11-21 08:00:00,1,A,0\n":    "line 3: quantity",
		head + "2011-11-21 08:00:00,1,A,many\n": "line 3: quantity",
		head + "yesterday,1,A,1\n":              "line 3",
		head + "2011-11-21 08:00:00,1,,1\n":     "line 3: bad_request: sku",
	} {
		if _, err := ReadPlan(strings.NewReader(in), Shape{Share: 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q in it", in, err, want)
		}
	}
}

func TestFates(t *testing.T) {
	for n, want := range map[int]fate{1: toSell, 19: toSell, 20: toRelease, 40: toRelease, 50: toExpire, 100: toExpire, 101: toSell} {
		if got := fateOf(n); got != want {
			t.Errorf("invoice %d: %d, want %d", n, got, want)
		}
	}
}
