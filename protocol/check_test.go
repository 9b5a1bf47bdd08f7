package protocol

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	long    = strings.Repeat("x", NameBytesMax)
	tooLong = long + "x"
)

// good has one plain command per op.
func good() map[Op]Command {
	lines := func() []Line { return []Line{{SKU: "A", Quantity: 1}} }
	return map[Op]Command{
		OpAuth:        {Op: OpAuth, Token: "t"},
		OpSubscribe:   {Op: OpSubscribe, SKUs: []string{"A"}},
		OpUnsubscribe: {Op: OpUnsubscribe},
		OpGet:         {Op: OpGet, SKUs: []string{"A"}},
		OpAdjust:      {Op: OpAdjust, Key: "k", SKU: "A", Delta: -1},
		OpCount:       {Op: OpCount, Key: "k", SKU: "A", OnHand: Ptr[int64](0)},
		OpReserve:     {Op: OpReserve, Key: "k", Lines: lines()},
		OpConfirm:     {Op: OpConfirm, Key: "k", Reservation: "eu.1"},
		OpRelease:     {Op: OpRelease, Key: "k", Reservation: "eu.1"},
		OpReservation: {Op: OpReservation, Reservation: "eu.1"},
		OpExtend:      {Op: OpExtend, Key: "k", Reservation: "eu.1", TTLMS: Ptr[int64](ReserveMSMin)},
		OpSell:        {Op: OpSell, Key: "k", Lines: lines()},
		OpMove:        {Op: OpMove, Key: "k", SKU: "A", From: "x", To: "y", Quantity: 1},
		OpConfigure:   {Op: OpConfigure, Key: "k", SKU: "A", LowStock: Ptr[int64](0)},
		OpHistory:     {Op: OpHistory, SKU: "A"},
		OpOutcome:     {Op: OpOutcome, Key: "k"},
		OpPing:        {Op: OpPing},
	}
}

func TestCheckAcceptsEveryOp(t *testing.T) {
	commands := good()
	for _, op := range Ops() {
		c, ok := commands[op]
		if !ok {
			t.Errorf("no example of %s", op)
		}
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if len(commands) != len(Ops()) {
		t.Errorf("%d examples, %d ops", len(commands), len(Ops()))
	}
}

func TestCheckFillsInDefaults(t *testing.T) {
	commands := good()
	for op, want := range map[Op]func(*Command){
		OpAdjust:    func(c *Command) { c.Location = "main" },
		OpCount:     func(c *Command) { c.Location = "main" },
		OpConfigure: func(c *Command) { c.Location = "main" },
		OpHistory:   func(c *Command) { c.Location, c.Limit = "main", 100 },
		OpSell:      func(c *Command) { c.Lines = []Line{{"A", "main", 1}} },
		OpReserve:   func(c *Command) { c.Lines, c.TTLMS = []Line{{"A", "main", 1}}, Ptr[int64](ReserveMSDefault) },
	} {
		c := commands[op]
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		expected := good()[op]
		want(&expected)
		if d := cmp.Diff(expected, c); d != "" {
			t.Errorf("%s (-want +got):\n%s", op, d)
		}
	}
	have := Command{Op: OpSubscribe, All: true, Have: []Have{{SKU: "A", Version: "eu:1"}}}
	if err := have.Check(); err != nil || have.Have[0].Location != "main" {
		t.Errorf("have: %+v, %v", have.Have, err)
	}
}

// manyLines and manyNames make lists of n.
func manyLines(n int) []Line {
	lines := make([]Line, n)
	for i := range lines {
		lines[i] = Line{SKU: "A", Quantity: 1}
	}
	return lines
}

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "A"
	}
	return names
}

func TestCheckTable(t *testing.T) {
	for _, c := range []struct {
		op     Op
		name   string
		change func(*Command)
		want   Code // "" = accepted
	}{
		{OpAdjust, "key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpAdjust, "key too long", func(c *Command) { c.Key = tooLong }, CodeBadRequest},
		{OpAdjust, "long key", func(c *Command) { c.Key = long }, ""},
		{OpAdjust, "home", func(c *Command) { c.Home = "Europe" }, CodeBadRequest},
		{OpAdjust, "good home", func(c *Command) { c.Home = "eu-1" }, ""},
		{OpAdjust, "reason too long", func(c *Command) { c.Reason = tooLong }, CodeBadRequest},
		{OpAdjust, "reason with a control character", func(c *Command) { c.Reason = "a\nb" }, CodeBadRequest},
		{OpAdjust, "reference too long", func(c *Command) { c.Reference = tooLong }, CodeBadRequest},
		{OpAdjust, "no sku", func(c *Command) { c.SKU = "" }, CodeBadRequest},
		{OpAdjust, "long sku", func(c *Command) { c.SKU = long }, ""},
		{OpAdjust, "sku too long", func(c *Command) { c.SKU = tooLong }, CodeBadRequest},
		{OpAdjust, "sku of any script", func(c *Command) { c.SKU = "红色-XL / *>.é" }, ""},
		{OpAdjust, "sku with NUL", func(c *Command) { c.SKU = "a\x00" }, CodeBadRequest},
		{OpAdjust, "sku with DEL", func(c *Command) { c.SKU = "a\x7f" }, CodeBadRequest},
		{OpAdjust, "sku with C1", func(c *Command) { c.SKU = "a\u0085" }, CodeBadRequest},
		{OpAdjust, "sku not UTF-8", func(c *Command) { c.SKU = "a\xff" }, CodeBadRequest},
		{OpAdjust, "location too long", func(c *Command) { c.Location = tooLong }, CodeBadRequest},
		{OpAdjust, "delta 0", func(c *Command) { c.Delta = 0 }, CodeBadRequest},
		{OpAdjust, "largest delta", func(c *Command) { c.Delta = QuantityMax }, ""},
		{OpAdjust, "smallest delta", func(c *Command) { c.Delta = -QuantityMax }, ""},
		{OpAdjust, "delta above", func(c *Command) { c.Delta = QuantityMax + 1 }, CodeBadRequest},
		{OpAdjust, "delta below", func(c *Command) { c.Delta = math.MinInt64 }, CodeBadRequest},
		{OpAdjust, "if_version", func(c *Command) { c.IfVersion = Ptr("eu:1,us:2") }, ""},
		{OpAdjust, "if_version empty", func(c *Command) { c.IfVersion = Ptr("") }, ""},
		{OpAdjust, "if_version bad", func(c *Command) { c.IfVersion = Ptr("7") }, CodeBadRequest},
		{OpCount, "no on_hand", func(c *Command) { c.OnHand = nil }, CodeBadRequest},
		{OpCount, "on_hand -1", func(c *Command) { c.OnHand = Ptr[int64](-1) }, CodeBadRequest},
		{OpCount, "on_hand above", func(c *Command) { c.OnHand = Ptr[int64](QuantityMax + 1) }, CodeBadRequest},
		{OpCount, "if_version bad", func(c *Command) { c.IfVersion = Ptr("eu:0") }, CodeBadRequest},
		{OpCount, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpReserve, "no lines", func(c *Command) { c.Lines = nil }, CodeBadRequest},
		{OpReserve, "100 lines", func(c *Command) { c.Lines = manyLines(LinesMax) }, ""},
		{OpReserve, "101 lines", func(c *Command) { c.Lines = manyLines(LinesMax + 1) }, CodeTooLarge},
		{OpReserve, "quantity 0", func(c *Command) { c.Lines[0].Quantity = 0 }, CodeBadRequest},
		{OpReserve, "quantity -1", func(c *Command) { c.Lines[0].Quantity = -1 }, CodeBadRequest},
		{OpReserve, "quantity above", func(c *Command) { c.Lines[0].Quantity = QuantityMax + 1 }, CodeBadRequest},
		{OpReserve, "line without sku", func(c *Command) { c.Lines[0].SKU = "" }, CodeBadRequest},
		{OpReserve, "line with bad location", func(c *Command) { c.Lines[0].Location = "\t" }, CodeBadRequest},
		{OpReserve, "ttl shortest", func(c *Command) { c.TTLMS = Ptr[int64](ReserveMSMin) }, ""},
		{OpReserve, "ttl longest", func(c *Command) { c.TTLMS = Ptr[int64](ReserveMSMax) }, ""},
		{OpReserve, "ttl too short", func(c *Command) { c.TTLMS = Ptr[int64](ReserveMSMin - 1) }, CodeBadRequest},
		{OpReserve, "ttl too long", func(c *Command) { c.TTLMS = Ptr[int64](ReserveMSMax + 1) }, CodeBadRequest},
		{OpReserve, "user", func(c *Command) { c.User = "a\x01" }, CodeBadRequest},
		{OpReserve, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpSell, "no lines", func(c *Command) { c.Lines = []Line{} }, CodeBadRequest},
		{OpSell, "101 lines", func(c *Command) { c.Lines = manyLines(LinesMax + 1) }, CodeTooLarge},
		{OpSell, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpConfirm, "no reservation", func(c *Command) { c.Reservation = "" }, CodeBadRequest},
		{OpConfirm, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpRelease, "no reservation", func(c *Command) { c.Reservation = "" }, CodeBadRequest},
		{OpRelease, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpReservation, "no reservation", func(c *Command) { c.Reservation = "" }, CodeBadRequest},
		{OpExtend, "no ttl", func(c *Command) { c.TTLMS = nil }, CodeBadRequest},
		{OpExtend, "no reservation", func(c *Command) { c.Reservation = "" }, CodeBadRequest},
		{OpExtend, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpMove, "no sku", func(c *Command) { c.SKU = "" }, CodeBadRequest},
		{OpMove, "no from", func(c *Command) { c.From = "" }, CodeBadRequest},
		{OpMove, "no to", func(c *Command) { c.To = "" }, CodeBadRequest},
		{OpMove, "one location", func(c *Command) { c.To = c.From }, CodeBadRequest},
		{OpMove, "quantity 0", func(c *Command) { c.Quantity = 0 }, CodeBadRequest},
		{OpMove, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpConfigure, "nothing", func(c *Command) { c.LowStock = nil }, CodeBadRequest},
		{OpConfigure, "negative", func(c *Command) { c.SafetyStock = Ptr[int64](-1) }, CodeBadRequest},
		{OpConfigure, "above", func(c *Command) { c.BackorderLimit = Ptr[int64](QuantityMax + 1) }, CodeBadRequest},
		{OpConfigure, "no key", func(c *Command) { c.Key = "" }, CodeMissingKey},
		{OpGet, "no skus", func(c *Command) { c.SKUs = nil }, CodeBadRequest},
		{OpGet, "a page of skus", func(c *Command) { c.SKUs = manyNames(PageMax) }, ""},
		{OpGet, "too many skus", func(c *Command) { c.SKUs = manyNames(PageMax + 1) }, CodeTooLarge},
		{OpGet, "empty sku", func(c *Command) { c.SKUs = []string{""} }, CodeBadRequest},
		{OpGet, "bad location", func(c *Command) { c.Locations = []string{tooLong} }, CodeBadRequest},
		{OpGet, "at_least", func(c *Command) { c.AtLeast = "eu:1" }, ""},
		{OpGet, "bad at_least", func(c *Command) { c.AtLeast = "eu" }, CodeBadRequest},
		{OpSubscribe, "no selector", func(c *Command) { c.SKUs = nil }, CodeBadRequest},
		{OpSubscribe, "locations alone", func(c *Command) { c.SKUs, c.Locations = nil, []string{"x"} }, ""},
		{OpSubscribe, "users alone", func(c *Command) { c.SKUs, c.Users = nil, []string{"u"} }, ""},
		{OpSubscribe, "all", func(c *Command) { c.SKUs, c.All = nil, true }, ""},
		{OpSubscribe, "most selectors", func(c *Command) { c.SKUs = manyNames(SelectorsMax) }, ""},
		{OpSubscribe, "too many selectors", func(c *Command) { c.SKUs, c.Users = manyNames(SelectorsMax), []string{"u"} }, CodeTooLarge},
		{OpSubscribe, "empty prefix", func(c *Command) { c.Prefixes = []string{""} }, CodeBadRequest},
		{OpSubscribe, "interval -1", func(c *Command) { c.IntervalMS = -1 }, CodeBadRequest},
		{OpSubscribe, "interval too long", func(c *Command) { c.IntervalMS = IntervalMSMax + 1 }, CodeBadRequest},
		{OpSubscribe, "since", func(c *Command) { c.Since = Ptr("eu:1,us:3") }, ""},
		{OpSubscribe, "bad since", func(c *Command) { c.Since = Ptr("us:1,eu:3") }, CodeBadRequest},
		{OpSubscribe, "since and have", func(c *Command) { c.Since, c.Have = Ptr(""), []Have{{SKU: "A"}} }, CodeBadRequest},
		{OpSubscribe, "have", func(c *Command) { c.Have = []Have{{SKU: "A", Version: "eu:1"}} }, ""},
		{OpSubscribe, "have without sku", func(c *Command) { c.Have = []Have{{Version: "eu:1"}} }, CodeBadRequest},
		{OpSubscribe, "have with bad version", func(c *Command) { c.Have = []Have{{SKU: "A", Version: "1"}} }, CodeBadRequest},
		{OpSubscribe, "have too long", func(c *Command) { c.Have = make([]Have, SelectorsMax+1) }, CodeTooLarge},
		{OpUnsubscribe, "selectors", func(c *Command) { c.SKUs = []string{"A"} }, ""},
		{OpUnsubscribe, "too many", func(c *Command) { c.SKUs = manyNames(SelectorsMax + 1) }, CodeTooLarge},
		{OpHistory, "no sku", func(c *Command) { c.SKU = "" }, CodeBadRequest},
		{OpHistory, "limit", func(c *Command) { c.Limit = HistoryMax }, ""},
		{OpHistory, "limit above", func(c *Command) { c.Limit = HistoryMax + 1 }, CodeBadRequest},
		{OpHistory, "limit -1", func(c *Command) { c.Limit = -1 }, CodeBadRequest},
		{OpHistory, "region", func(c *Command) { c.Region = "eu" }, ""},
		{OpHistory, "bad region", func(c *Command) { c.Region = "e.u" }, CodeBadRequest},
		{OpOutcome, "no key", func(c *Command) { c.Key = "" }, CodeBadRequest},
		{OpOutcome, "bad home", func(c *Command) { c.Home = strings.Repeat("a", 33) }, CodeBadRequest},
		{OpAuth, "no token", func(c *Command) { c.Token = "" }, CodeBadRequest},
		{OpPing, "no op", func(c *Command) { c.Op = "" }, CodeBadRequest},
		{OpPing, "unknown op", func(c *Command) { c.Op = "explode" }, CodeBadRequest},
		{OpPing, "op in capitals", func(c *Command) { c.Op = "PING" }, CodeBadRequest},
	} {
		cmd := good()[c.op]
		c.change(&cmd)
		err := cmd.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Code != c.want) {
			t.Errorf("%s, %s: %v, want %q", c.op, c.name, err, c.want)
		}
	}
}

func TestCheckRegion(t *testing.T) {
	for name, ok := range map[string]bool{"eu": true, "us-west-2": true, strings.Repeat("a", 32): true,
		"": false, strings.Repeat("a", 33): false, "EU": false, "e_u": false, "é": false} {
		if err := CheckRegion("region", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
