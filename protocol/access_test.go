package protocol

import (
	"encoding/json"
	"testing"
)

func accessOf(t *testing.T, region, grants string) *Access {
	t.Helper()
	var list []Grant
	if err := json.Unmarshal([]byte(grants), &list); err != nil {
		t.Fatal(err)
	}
	return NewAccess(region, list)
}

func TestAccessChecksCommands(t *testing.T) {
	shop := `[{"do":["watch","reserve","sell"],"skus":["tee-*","cap"],"locations":["store-12"],"regions":["eu"]},
		{"do":["watch"],"skus":["open*"]},{"do":["reserve"],"skus":["vip"],"users":["u1"]},
		{"do":["move"],"locations":["a","b"]},{"do":["history"],"regions":["us"]}]`
	for _, c := range []struct {
		grants string
		cmd    Command
		ok     bool
	}{
		{shop, Command{Op: OpPing}, true},
		{shop, Command{Op: OpSell, Lines: []Line{{SKU: "tee-1", Location: "store-12"}}}, true},
		{shop, Command{Op: OpSell, Lines: []Line{{SKU: "tee-1", Location: "store-12"}, {SKU: "hat", Location: "store-12"}}}, false},
		{shop, Command{Op: OpSell, Lines: []Line{{SKU: "cap", Location: "main"}}}, false},
		{shop, Command{Op: OpSell, Home: "us", Lines: []Line{{SKU: "cap", Location: "store-12"}}}, false},
		{shop, Command{Op: OpReserve, User: "u1", Lines: []Line{{SKU: "vip", Location: "main"}}}, true},
		{shop, Command{Op: OpReserve, User: "u2", Lines: []Line{{SKU: "vip", Location: "main"}}}, false},
		{shop, Command{Op: OpReserve, Lines: []Line{{SKU: "vip", Location: "main"}}}, false},
		{shop, Command{Op: OpMove, SKU: "x", From: "a", To: "b"}, true},
		{shop, Command{Op: OpMove, SKU: "x", From: "a", To: "c"}, false},
		{shop, Command{Op: OpAdjust, SKU: "tee-1", Location: "store-12"}, false},
		{shop, Command{Op: OpHistory, SKU: "x", Location: "main", Region: "us"}, true},
		{shop, Command{Op: OpHistory, SKU: "x", Location: "main"}, false},
		{shop, Command{Op: OpGet, SKUs: []string{"tee-1", "open"}}, true},
		{shop, Command{Op: OpGet, SKUs: []string{"tee-1", "x"}}, false},
		{shop, Command{Op: OpGet, SKUs: []string{"tee-1"}, Locations: []string{"main"}}, false},
		{shop, Command{Op: OpGet, SKUs: []string{"open"}, Locations: []string{"main"}}, true},
		{shop, Command{Op: OpSubscribe, All: true}, true},
		{shop, Command{Op: OpSubscribe, Users: []string{"u9"}}, true},
		{shop, Command{Op: OpConfirm, Reservation: "us.0.1"}, true}, // vip there
		{shop, Command{Op: OpReservation, Reservation: "us.0.1"}, true},
		{`[{"do":["watch"],"users":["u1"]}]`, Command{Op: OpSubscribe, Users: []string{"u2"}}, false},
		{`[{"do":["watch"],"locations":["a"]}]`, Command{Op: OpSubscribe, Locations: []string{"b"}}, false},
		{`[{"do":["reserve"],"regions":["eu"]}]`, Command{Op: OpConfirm, Reservation: "us.0.1"}, false},
		{`[{"do":["reserve"],"regions":["eu"]}]`, Command{Op: OpConfirm, Reservation: "eu.0.1", Home: "us"}, false},
		{`[{"do":["watch"],"skus":[]}]`, Command{Op: OpGet, SKUs: []string{"a"}}, false},
		{`[]`, Command{Op: OpUnsubscribe}, false},
		{`[{"do":["settle","ping"]}]`, Command{Op: OpSettle}, false},
	} {
		if err := accessOf(t, "eu", c.grants).Check(&c.cmd); (err == nil) != c.ok || err != nil && err.Code != CodeForbidden {
			t.Errorf("%+v: %v, want ok %v", c.cmd, err, c.ok)
		}
		if err := (*Access)(nil).Check(&c.cmd); (err == nil) != (c.cmd.Op == OpPing) {
			t.Errorf("%s without access: %v", c.cmd.Op, err)
		}
		if err := FullAccess().Check(&c.cmd); err != nil {
			t.Errorf("%s with full access: %v", c.cmd.Op, err)
		}
	}
}

func TestAccessGivesReservationsAScope(t *testing.T) {
	a := accessOf(t, "eu", `[{"do":["reserve"],"skus":["tee-*"],"locations":["s"],"users":["u1"]}]`)
	cmd := Command{Op: OpRelease, Reservation: "eu.0.1"}
	if err := a.Check(&cmd); err != nil || cmd.Within == nil {
		t.Fatal(err, cmd.Within)
	}
	for _, c := range []struct {
		user string
		line Line
		want bool
	}{
		{"u1", Line{SKU: "tee-1", Location: "s"}, true}, {"u2", Line{SKU: "tee-1", Location: "s"}, false},
		{"u1", Line{SKU: "tee-1", Location: "t"}, false}, {"u1", Line{SKU: "cap", Location: "s"}, false},
	} {
		if got := cmd.Within.Covers(c.user, []Line{c.line}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if cmd.Within.Covers("u1", []Line{{SKU: "tee-1", Location: "s"}, {SKU: "cap", Location: "s"}}) {
		t.Error("one line outside")
	}
	cmd = Command{Op: OpRelease, Reservation: "eu.0.1"}
	if err := accessOf(t, "eu", `[{"do":["reserve"]}]`).Check(&cmd); err != nil || cmd.Within != nil {
		t.Error("a wide grant limits", err, cmd.Within)
	}
}

// What a narrowed selector picks is all that both picks and is seen.
func FuzzAccessNarrow(f *testing.F) {
	f.Add(`[{"do":["watch"],"skus":["a*","b"],"locations":["x"]},{"do":["watch"],"skus":["c"]}]`, "a", "", "", "a1", "x")
	f.Add(`[{"do":["watch"],"skus":["a1","a2","a3","a4","a5","a6","a7","a8","b*"]}]`, "", "", "x", "b1", "y")
	f.Fuzz(func(t *testing.T, grants, sku, prefix, location, itemSKU, itemLocation string) {
		var list []Grant
		if json.Unmarshal([]byte(grants), &list) != nil {
			t.Skip()
		}
		a := NewAccess("eu", list)
		var s Selector
		add := func(to *[]string, v string) {
			if v != "" {
				*to = append(*to, v)
			}
		}
		add(&s.SKUs, sku)
		add(&s.Prefixes, prefix)
		add(&s.Locations, location)
		k := ItemKey{SKU: itemSKU, Location: itemLocation}
		want := s.Match(k) && a.Sees(k.SKU, k.Location)
		narrow, ok := a.Narrow(s)
		if want && !(ok && narrow.Match(k)) {
			t.Errorf("%+v leaves out %+v", narrow, k)
		}
		if ok && narrow.Match(k) && !s.Match(k) {
			t.Errorf("%+v picks %+v, which %+v doesn't", narrow, k, s)
		}
		slow := false
		for _, g := range list {
			watches := false
			for _, d := range g.Do {
				watches = watches || d == RightWatch
			}
			slow = slow || watches && listed(g.Regions, "eu") && g.allows(k.SKU, k.Location)
		}
		if slow != a.Sees(k.SKU, k.Location) {
			t.Errorf("Sees(%+v) is not %v", k, slow)
		}
	})
}

func TestSameGrants(t *testing.T) {
	one := `[{"do":["watch"],"skus":["a"],"locations":["x"]},{"do":["sell"]}]`
	for other, want := range map[string]bool{
		one: true,
		`[{"do":["watch"],"skus":["a"],"locations":["x"]},{"do":["sell"],"users":[]}]`: false,
		`[{"do":["watch"],"skus":["a"],"locations":["x"]}]`:                            false,
		`[{"do":["watch"],"skus":["a"]},{"do":["sell"]}]`:                              false,
	} {
		if got := accessOf(t, "eu", one).Same(accessOf(t, "eu", other)); got != want {
			t.Errorf("%s: %v", other, got)
		}
	}
	if accessOf(t, "eu", one).Same(accessOf(t, "us", one)) || accessOf(t, "eu", `[{"do":["watch"]}]`).Same(nil) {
		t.Error("another region, or none")
	}
}

func BenchmarkAccessCheck(b *testing.B) {
	var list []Grant
	if err := json.Unmarshal([]byte(`[{"do":["watch","history"],"skus":["tee-*","cap-*"]},{"do":["reserve","sell"],"skus":["tee-*","cap-*","hot"],"locations":["main","store-1"],"regions":["eu"]},{"do":["adjust"]}]`), &list); err != nil {
		b.Fatal(err)
	}
	a := NewAccess("eu", list)
	call := Call{Command: Command{Op: OpSell, Key: "k", Lines: []Line{{SKU: "hot", Location: "main", Quantity: 1}}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Check(&call.Command); err != nil {
			b.Fatal(err)
		}
		a.VisibleReply(&call)
	}
}
