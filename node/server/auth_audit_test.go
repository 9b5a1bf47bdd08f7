package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// movements reads an item's history, newest first.
func (l *lodge) movements(sku, location string) []protocol.Movement {
	l.t.Helper()
	a := l.get("/v1/stock/"+sku+"/history?location="+location, l.keys.token(everything))
	var page struct {
		Movements []protocol.Movement `json:"movements"`
	}
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
		l.t.Fatalf("history: %d %s %v", a.status, a.body, err)
	}
	return page.Movements
}

// Who sold, and from where, stands in the history, and stays there.
func TestHistorySaysWho(t *testing.T) {
	l := openLodge(t, func(c *server.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	l.seed("tee-1", "store-1", 100)
	const lines = `"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]`
	by := func(name string) string { return l.keys.token(everything, subject(name)) }
	l.write("/v1/sales", by("anna"), `{`+lines+`}`, "X-Forwarded-For", "192.0.2.7")
	// What the client itself put in front of it is no trusted proxy's word.
	l.write("/v1/sales", by("bert"), `{`+lines+`}`, "X-Forwarded-For", "10.9.9.9, 2001:db8::1")
	cleo := l.open(by("cleo"), "X-Forwarded-For", "192.0.2.8")
	cleo.must(`{"op":"sell","key":"ws-1",%s}`, lines)
	dora := l.open("", "X-Forwarded-For", "192.0.2.9")
	if code := dora.auth(by("dora")); code != "ok" {
		t.Fatal(code)
	}
	dora.must(`{"op":"sell","key":"ws-2",%s}`, lines)
	if code := dora.auth(by("dora-2")); code != "ok" { // another caller from here on
		t.Fatal(code)
	}
	dora.must(`{"op":"sell","key":"ws-3",%s}`, lines)
	if a := l.ask(http.MethodPost, l.url("/v1/batch"), by("emil"), `[{"op":"sell","key":"batch-1",`+lines+`}]`); !strings.Contains(a.body, `"ok"`) {
		t.Fatal(a.body)
	}
	held := l.write("/v1/reservations", by("fred"), `{`+lines+`}`)
	var r protocol.Reservation
	if err := json.Unmarshal([]byte(held.body), &struct {
		Reservation *protocol.Reservation `json:"reservation"`
	}{&r}); err != nil {
		t.Fatal(err)
	}
	l.write("/v1/reservations/"+r.ID+"/confirm", by("gina"), `{}`)
	// A client can't say that it is somebody else.
	l.write("/v1/sales", by("hans"), `{"subject":"boss","address":"6.6.6.6","user":"boss",`+lines+`}`)
	want := []string{
		"hans 127.0.0.1", "gina 127.0.0.1", "fred 127.0.0.1", "emil 127.0.0.1", "dora-2 192.0.2.9", "dora 192.0.2.9",
		"cleo 192.0.2.8", "bert 2001:db8::1", "anna 192.0.2.7", "tester 127.0.0.1",
	}
	for _, when := range []string{"at once", "after a restart"} {
		var got []string
		for _, m := range l.movements("tee-1", "store-1") {
			got = append(got, m.Subject+" "+m.Address)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %q\nwant %q", when, got, want)
		}
		l.restart()
	}
}

// What is refused leaves no trace in the stock, but one line in the log.
func TestRefusedWritesAreLogged(t *testing.T) {
	l := openLodge(t, func(c *server.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	l.seed("tee-1", "store-1", 100)
	token := l.keys.token(onlyTees, subject("mallory"))
	forged := newIssuer(t).token(everything, subject("mallory"))
	const from = "192.0.2.66"
	const lines = `"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]`
	header := func(key string) []string { return []string{"X-Forwarded-For", from, "Idempotency-Key", key} }
	session := l.open(token, "X-Forwarded-For", from)
	nobody := l.open("", "X-Forwarded-For", from)
	for _, c := range []struct {
		key, op, subject, code string
		do                     func() string
	}{
		{"r-1", "sell", "mallory", "forbidden", func() string {
			return string(l.ask(http.MethodPost, l.url("/v1/sales"), token, `{`+lines+`}`, header("r-1")...).problem().Code)
		}},
		{"r-2", "sell", "mallory", "forbidden", func() string {
			reply, _ := session.ask(`{"op":"sell","key":"r-2",%s}`, lines)
			return reply.code()
		}},
		{"r-3", "adjust", "mallory", "forbidden", func() string {
			a := l.ask(http.MethodPost, l.url("/v1/batch"), token, `[{"op":"adjust","key":"r-3","sku":"tee-1","location":"store-1","delta":1}]`, header("")[:2]...)
			if !strings.Contains(a.body, `"forbidden"`) {
				return a.body
			}
			return "forbidden"
		}},
		{"r-4", "sell", "", "unauthorized", func() string {
			return string(l.ask(http.MethodPost, l.url("/v1/sales"), forged, `{`+lines+`}`, header("r-4")...).problem().Code)
		}},
		{"r-5", "sell", "", "unauthorized", func() string {
			reply, _ := nobody.ask(`{"op":"sell","key":"r-5",%s}`, lines)
			return reply.code()
		}},
		{"r-6", "configure", "mallory", "forbidden", func() string {
			return string(l.ask(http.MethodPut, l.url("/v1/stock/tee-1/settings?location=store-1"), token, `{"low_stock":5}`, header("r-6")...).problem().Code)
		}},
	} {
		if code := c.do(); code != c.code {
			t.Errorf("%s was answered %s, want %s", c.key, code, c.code)
		}
		found := l.log.lines(t, map[string]any{"key": c.key})
		if len(found) != 1 {
			t.Errorf("%s: %d lines %v, want one", c.key, len(found), found)
			continue
		}
		line := found[0]
		if line["op"] != c.op || line["subject"] != c.subject || line["code"] != c.code || line["address"] != from || line["level"] != "INFO" || !strings.HasPrefix(line["msg"].(string), "audit") {
			t.Errorf("%s: %v", c.key, line)
		}
	}
	if n := len(l.movements("tee-1", "store-1")); n != 1 {
		t.Errorf("%d movements, want that of the seed", n)
	}
	// An operator's doings are logged too.
	if a := l.ask(http.MethodPost, l.adminURL("/revocations"), l.keys.token(everything), `{"subject":"mallory"}`, "X-Forwarded-For", from); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	operator := l.log.lines(t, map[string]any{"part": "admin", "msg": "audit", "path": "/revocations"})
	if len(operator) != 1 || operator[0]["subject"] == "" || operator[0]["method"] != "POST" || operator[0]["status"] != 200.0 {
		t.Errorf("revoking left %v, want one line", operator)
	}
	if n := len(l.log.lines(t, map[string]any{"msg": "revoked", "of": "mallory"})); n != 1 {
		t.Errorf("%d lines say who was revoked, want one", n)
	}
}
