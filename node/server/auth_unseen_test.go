package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// world is a node of which a shopper sees one shop's tees and another's mugs. A full one knows of other
// things too, of which the shopper must not notice anything.
type world struct {
	*lodge
	full    bool
	unseen  int    // hidden changes
	shopper string // token
	facts   map[string]string
	held    string // id of a reservation that is hidden
}

// Two grants: what is seen is not all that has a SKU of one and a location of the other.
const shopperGrants = `[{"do":["watch","history","reserve","sell","adjust"],"skus":["tee-*"],"locations":["store-1"],"users":["u1"]},` +
	`{"do":["watch","history"],"skus":["mug-*"],"locations":["store-2"]}]`

func openWorld(t *testing.T, full bool) *world {
	t.Helper()
	w := &world{lodge: openLodge(t), full: full, facts: make(map[string]string)}
	w.config.Name = "n1"
	w.shopper = w.keys.token(shopperGrants, subject("shopper"))
	w.hidden("tee-1", "store-2", "main")
	w.seed("tee-1", "store-1", 10)
	w.hidden("cap-1", "store-1", "main")
	w.hidden("tee-9", "store-2", "main")
	w.hidden("tee", "store-1")
	w.hidden("mug-1", "store-1", "main")
	w.seed("mug-1", "store-2", 5)
	w.hidden("mug-9", "store-1")
	w.seed("tee-2", "store-1", 20)
	w.crowd()
	w.seed("tee-3", "store-1", 30)
	return w
}

// hidden changes an item at locations, if there is such a thing in this world.
func (w *world) hidden(sku string, locations ...string) {
	w.t.Helper()
	for _, location := range locations {
		if w.full {
			w.unseen++ // its key mustn't be of those that are counted in both worlds
			a := w.ask(http.MethodPost, w.url("/v1/adjustments"), w.keys.token(everything), fmt.Sprintf(`{"key":"hidden-%d","sku":%q,"location":%q,"delta":5}`, w.unseen, sku, location))
			if a.status != http.StatusOK {
				w.t.Fatalf("%s at %s: %d %s", sku, location, a.status, a.body)
			}
		}
	}
}

// crowd is more than a page of what isn't seen, before, between and behind what is.
func (w *world) crowd() {
	w.t.Helper()
	if !w.full {
		return
	}
	var commands []string
	for i := range 600 {
		for _, at := range [][2]string{{"tea", "store-1"}, {"tee-1", "store-2"}, {"tee-2", "store-0"}, {"zip", "store-1"}} {
			commands = append(commands, fmt.Sprintf(`{"op":"adjust","key":"crowd-%s-%d","sku":"%s-%d","location":%q,"delta":1}`, at[0], i, at[0], i, at[1]))
		}
	}
	a := w.ask(http.MethodPost, w.url("/v1/batch"), w.keys.token(everything), "["+strings.Join(commands, ",")+"]")
	if a.status != http.StatusOK || strings.Contains(a.body, `"error"`) {
		w.t.Fatalf("%d %.300s", a.status, a.body)
	}
	held := w.ask(http.MethodPost, w.url("/v1/reservations"), w.keys.token(everything), `{"key":"hidden","user":"u2","lines":[{"sku":"cap-1","location":"store-1","quantity":1}]}`)
	w.held = reservationID(w.t, held.body)
}

func reservationID(t *testing.T, body string) string {
	t.Helper()
	var ok struct{ Reservation protocol.Reservation }
	if err := json.Unmarshal([]byte(body), &ok); err != nil || ok.Reservation.ID == "" {
		t.Fatal(body, err)
	}
	return ok.Reservation.ID
}

// What differs between two nodes whatever is hidden: times, the numbers of log and
// session, and the ids made of them.
var differing = []*regexp.Regexp{
	regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`),
	regexp.MustCompile(`(?:"sequence":"|"cursor":"|id: |"eu\.)[^",\]]+`),
	regexp.MustCompile(`"session":"[^"]*"|"node":"[^"]*"|"endpoints":\[[^\]]*\]|"next":"eu[^"]*"|Date:\[[^\]]*\]`),
	regexp.MustCompile(`/v1/reservations/eu\.[^ \]]*`),
	regexp.MustCompile(`Content-Length:\[\d+\]`), // of numbers with more digits
}

func plain(text string) string {
	for i, r := range differing {
		text = r.ReplaceAllString(text, fmt.Sprintf("<%d>", i))
	}
	return text
}

// note keeps an answer for the comparison.
func (w *world) note(what, answer string) {
	w.facts[what] = plain(answer)
}

// look reads over HTTP.
func (w *world) look(path string, headers ...string) answered {
	w.t.Helper()
	a := w.get(path, w.shopper, headers...)
	w.note(fmt.Sprintf("GET %s %v", plain(path), plain(fmt.Sprint(headers))), fmt.Sprint(a.status, a.header, a.body))
	return a
}

// Two worlds that differ in what a caller may not see answer it the same, whatever it asks.
func TestWhatIsNotSeenIsNowhere(t *testing.T) {
	t.Parallel()
	empty, full := openWorld(t, false), openWorld(t, true)
	for _, w := range []*world{empty, full} {
		w.readItems()
		w.readRecords()
		w.writeRefused()
		w.getItems()
		w.subscribe()
		w.resume()
		w.stream()
		w.longPoll()
	}
	for _, what := range slices.Sorted(maps.Keys(full.facts)) {
		if got, want := full.facts[what], empty.facts[what]; got != want {
			t.Errorf("%s\n with hidden items: %.1500s\n without:           %.1500s", what, got, want)
		}
	}
	if len(full.facts) != len(empty.facts) || len(full.facts) < 60 {
		t.Errorf("%d answers, and %d", len(full.facts), len(empty.facts))
	}
}

func (w *world) readItems() {
	w.t.Helper()
	for _, query := range []string{
		"", "?sku=tee-1", "?sku=tee-9", "?sku=tee-9&sku=tee-1&sku=tee-none", "?sku=tee-none", "?sku=cap-1", "?sku=cap-none",
		"?prefix=tee", "?prefix=t", "?prefix=c", "?prefix=tee-1", "?prefix=tee-9", "?prefix=zip", "?location=store-1", "?location=store-2", "?location=nowhere",
		"?location=store-1&sku=tee-1", "?location=store-2&sku=tee-1", "?location=store-1&location=store-2", "?location=store-1&sku=cap-1", "?prefix=tee&location=store-1",
		"?limit=1", "?limit=2", "?limit=3", "?prefix=t&limit=1", "?limit=500", "?limit=1&after=tee-1", "?sku=tee-1&limit=1",
		"?location=store-3", "?sku=mug-1", "?sku=mug-9", "?sku=mug-1&sku=tee-1", "?prefix=m", "?sku=mug-9&location=store-2", "?sku=mug-9&location=store-1",
	} {
		w.look("/v1/stock" + query)
	}
	// Pages to the end, one item each.
	pages := 0
	for next := ""; pages == 0 || next != ""; pages++ {
		a := w.get("/v1/stock?limit=1&after="+next, w.shopper)
		var page protocol.Page
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK || pages > 10 {
			w.t.Fatalf("page %d: %d %s %v", pages, a.status, a.body, err)
		}
		w.note(fmt.Sprintf("page %d", pages), a.body)
		next = page.Next
	}
	version := w.get("/v1/stock/tee-1?location=store-1", w.shopper).header.Get("ETag")
	for _, path := range []string{
		"/v1/stock/tee-1", "/v1/stock/tee-1?location=store-1", "/v1/stock/tee-1?location=store-2", "/v1/stock/tee-9?location=store-1", "/v1/stock/tee-9?location=store-2",
		"/v1/stock/cap-1?location=store-1", "/v1/stock/cap-none?location=store-1", "/v1/stock/cap-1", "/v1/stock/tee-none?location=store-1",
		"/v1/stock/mug-1?location=store-1", "/v1/stock/mug-1?location=store-2", "/v1/stock/mug-9?location=store-2",
	} {
		w.look(path)
		w.look(path, "If-None-Match", version)
		w.look(path, "If-None-Match", `"eu:3"`)
		w.look(path, "If-None-Match", `""`)
		w.look(path, "If-None-Match", "*")
	}
	w.look("/v1/stock/tee-1?location=store-1&at_least=" + strings.Trim(version, `"`))
	w.look("/v1/stock/tee-1?location=store-1&at_least=eu:1000000")
	w.look("/v1/stock/tee-9?location=store-1&at_least=eu:2")
}

func (w *world) readRecords() {
	w.t.Helper()
	held := w.write("/v1/reservations", w.shopper, `{"user":"u1","lines":[{"sku":"tee-1","location":"store-1","quantity":2}]}`)
	own := reservationID(w.t, held.body)
	w.note("reserve", held.body)
	w.look("/v1/reservations/" + own)
	for _, id := range []string{w.held, "eu.01JNOTHING"} {
		if id == "" {
			id = own[:len(own)-4] + "ZZZZ" // none has it
		}
		w.facts["another reservation"] += strings.ReplaceAll(plain(w.get("/v1/reservations/"+id, w.shopper).body), id, "<id>")
		a := w.ask(http.MethodPost, w.url("/v1/reservations/"+id+"/confirm"), w.shopper, `{}`, "Idempotency-Key", "confirm-hidden")
		w.facts["confirm another reservation"] += fmt.Sprint(a.status, strings.ReplaceAll(plain(a.body), id, "<id>"))
	}
	for _, path := range []string{
		"/v1/stock/tee-1/history?location=store-1", "/v1/stock/tee-1/history?location=store-1&limit=1", "/v1/stock/tee-1/history?location=store-2", "/v1/stock/tee-1/history",
		"/v1/stock/tee-9/history?location=store-1", "/v1/stock/tee-9/history?location=store-2", "/v1/stock/cap-1/history?location=store-1", "/v1/stock/cap-none/history?location=store-1",
		"/v1/stock/tee-1/history?location=store-1&region=us", "/v1/outcomes/nobody-used-it", "/v1/mesh",
		"/v1/stock/mug-1/history?location=store-1", "/v1/stock/mug-1/history?location=store-2", "/v1/stock/mug-9/history?location=store-2",
	} {
		w.look(path)
	}
}

// writeRefused: errors, with details, tell no more than reading does.
func (w *world) writeRefused() {
	w.t.Helper()
	for _, c := range []struct{ what, path, body string }{
		{"too many", "/v1/sales", `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1000}]}`},
		{"too many, some hidden", "/v1/sales", `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1000},{"sku":"tee-1","location":"store-2","quantity":1000}]}`},
		{"hidden location", "/v1/sales", `{"lines":[{"sku":"tee-9","location":"store-2","quantity":1}]}`},
		{"hidden SKU", "/v1/sales", `{"lines":[{"sku":"cap-1","location":"store-1","quantity":1}]}`},
		{"seen nowhere", "/v1/sales", `{"lines":[{"sku":"tee-9","location":"store-1","quantity":1}]}`},
		{"reserve too many", "/v1/reservations", `{"user":"u1","lines":[{"sku":"tee-2","location":"store-1","quantity":1000}]}`},
		{"another user", "/v1/reservations", `{"user":"u2","lines":[{"sku":"tee-2","location":"store-1","quantity":1}]}`},
		{"version conflict", "/v1/adjustments", `{"sku":"tee-3","location":"store-1","delta":1,"if_version":"eu:999999"}`},
		{"hidden version", "/v1/adjustments", `{"sku":"tee-1","location":"store-2","delta":1,"if_version":""}`},
		{"does not exist yet", "/v1/adjustments", `{"sku":"tee-8","location":"store-1","delta":1,"if_version":""}`},
		{"move", "/v1/moves", `{"sku":"tee-1","from":"store-1","to":"store-2","quantity":1}`},
		{"default location", "/v1/sales", `{"lines":[{"sku":"tee-1","quantity":1}]}`},
	} {
		a := w.ask(http.MethodPost, w.url(c.path), w.shopper, c.body, "Idempotency-Key", "refused "+c.what)
		w.note(c.what, fmt.Sprint(a.status, a.header, a.body))
	}
}

// heard notes what a session has heard since a message, cursors aside.
func (w *world) heard(what string, s *session, from int) {
	w.t.Helper()
	s.must(`{"op":"get","skus":["tee-3"]}`) // a fence: all before it has been said
	var lines []string
	for _, m := range s.messages()[from:] {
		if m.Op != "cursor" {
			lines = append(lines, plain(m.raw))
		}
	}
	// A page of a snapshot may be cut anywhere.
	w.note(what, strings.ReplaceAll(strings.Join(lines, "\n"), "]}\n{\"op\":\"stock\",\"snapshot\":true,\"items\":[", ","))
}

// changes are some that are seen between many that aren't; await sees those.
func (w *world) changes(await func(sku string, onHand int64)) {
	w.t.Helper()
	for range 3 {
		for _, sku := range []string{"tee-1", "tee-2"} {
			w.hidden(sku, "store-2", "main", fmt.Sprintf("new-%d", w.unseen))
			w.hidden("tee-9", "store-2")
			w.hidden("mug-1", "store-1")
			w.hidden(fmt.Sprintf("tea-x%d", w.unseen), "store-1")
			a := w.ask(http.MethodPost, w.url("/v1/adjustments"), w.keys.token(everything), fmt.Sprintf(`{"key":%q,"sku":%q,"location":"store-1","delta":1}`, w.key(), sku))
			var ok struct{ Item protocol.Item }
			if err := json.Unmarshal([]byte(a.body), &ok); err != nil || a.status != http.StatusOK {
				w.t.Fatal(a, err)
			}
			await(sku, ok.Item.OnHand)
			w.hidden("cap-1", "store-1")
		}
	}
}

func (w *world) getItems() {
	w.t.Helper()
	s := w.open(w.shopper)
	for _, skus := range []string{`"tee-1"`, `"tee-9"`, `"mug-9"`, `"cap-1"`, `"tee-9","tee-none","mug-1","mug-9","tee-1"`} {
		s.ask(`{"op":"get","skus":[%s]}`, skus)
		s.ask(`{"op":"get","skus":[%s],"locations":["store-1"],"at_least":"eu:1"}`, skus)
		s.ask(`{"op":"get","skus":[%s],"locations":["store-1","store-2"]}`, skus)
	}
	s.ask(`{"op":"get","skus":["tee-9"],"at_least":"eu:1"}`)
	w.heard("gets", s, 1) // after the hello
}

func (w *world) subscribe() {
	w.t.Helper()
	for _, selectors := range []string{
		`"all":true`, `"all":true,"locations":["store-1"]`, `"all":true,"locations":["store-2"]`, `"locations":["store-1"]`, `"locations":["store-1","store-2"]`,
		`"prefixes":["tee"]`, `"prefixes":["t"]`, `"prefixes":["cap","tee-9"]`, `"skus":["tee-1","tee-2","tee-9"]`, `"skus":["cap-1"]`, `"skus":["tee-9"]`,
		`"skus":["tee-1"],"locations":["store-2"]`, `"skus":["tee-1"],"locations":["store-1"]`, `"users":["u1"]`, `"users":["u2"]`, `"skus":["tee-1","tee-9"],"users":["u1"]`,
		`"locations":["store-2"]`, `"locations":["store-3"]`, `"skus":["mug-1","mug-9","tee-1"]`, `"prefixes":["mug","tee"],"locations":["store-2"]`,
		`"all":true,"have":[{"sku":"tee-1","location":"store-1","version":""},{"sku":"tee-9","location":"store-2","version":"eu:1"}]`,
	} {
		s := w.open(w.shopper)
		s.ask(`{"op":"subscribe",%s}`, selectors)
		w.heard("subscribe "+selectors, s, 1)
		_ = s.conn.CloseNow()
	}
	for _, selectors := range []string{`"all":true`, `"prefixes":["t"]`, `"skus":["mug-1","tee-1","tee-2","tee-9"]`, `"locations":["store-1"]`, `"locations":["store-1","store-2"]`} {
		s := w.open(w.shopper)
		_, from := s.must(`{"op":"subscribe",%s}`, selectors)
		w.changes(func(sku string, onHand int64) {
			s.await("the push", func(heard []said) bool {
				return slices.ContainsFunc(heard[from:], func(m said) bool {
					return slices.ContainsFunc(m.Items, func(it protocol.Item) bool { return it.SKU == sku && it.OnHand == onHand })
				})
			})
		})
		w.heard("pushes of "+selectors, s, from)
		_ = s.conn.CloseNow()
	}
}

// resume comes back with a cursor, after changes.
func (w *world) resume() {
	w.t.Helper()
	for _, selectors := range []string{`"all":true`, `"prefixes":["t"]`, `"skus":["tee-1","tee-9"]`, `"locations":["store-1"]`} {
		s := w.open(w.shopper)
		reply, _ := s.must(`{"op":"subscribe",%s}`, selectors)
		cursor := reply.OK["cursor"].(string)
		_ = s.conn.CloseNow()
		for _, seen := range []bool{false, true} {
			w.hidden("tee-1", "store-2")
			w.hidden("tee-9", "store-2")
			if seen {
				w.seed("tee-1", "store-1", 1)
			}
			s := w.open(w.shopper)
			s.must(`{"op":"subscribe",%s,"since":%q}`, selectors, cursor)
			w.heard(fmt.Sprintf("resumed, %v: %s", seen, selectors), s, 1)
			_ = s.conn.CloseNow()
		}
	}
}

// stream compares the data of events; their ids are cursors.
func (w *world) stream() {
	w.t.Helper()
	for _, query := range []string{"all=1", "prefix=t", "sku=mug-1&sku=tee-1&sku=tee-2&sku=tee-3&sku=tee-9", "location=store-1", "location=store-1&location=store-2"} {
		e := w.follow("/v1/stream?"+query, w.shopper)
		var got []string
		next := func(sku string, onHand int64) {
			for {
				data := e.next()
				got = append(got, plain(data))
				var it protocol.Item
				if err := json.Unmarshal([]byte(data), &it); err != nil {
					w.t.Fatal(data, err)
				}
				if it.SKU == sku && (onHand < 0 || it.OnHand == onHand) {
					return
				}
			}
		}
		next("tee-3", -1) // the last of the snapshot
		w.changes(next)
		w.note("stream of "+query, strings.Join(got, "\n"))
		e.body.Close()
	}
	for _, query := range []string{"sku=cap-1", "sku=cap-none", "location=store-3", "sku=tee-1&location=store-2"} {
		w.look("/v1/stream?" + query)
	}
}

// longPoll waits for an item while others change.
func (w *world) longPoll() {
	w.t.Helper()
	const path = "/v1/stock/tee-1?location=store-1"
	for _, seen := range []bool{false, true} {
		version := w.get(path, w.shopper).header.Get("ETag")
		wait := "&wait_ms=300"
		if seen {
			wait = "&wait_ms=60000"
		}
		done := make(chan answered, 1)
		go func() {
			a, err := w.tryAsk(http.MethodGet, w.url(path+wait), w.shopper, "", "If-None-Match", version)
			if err != nil {
				w.t.Error(err)
			}
			done <- a
		}()
		w.hidden("tee-1", "store-2", "main")
		w.hidden("tee-9", "store-2")
		if seen {
			w.seed("tee-1", "store-1", 1)
		}
		a := <-done
		w.note(fmt.Sprintf("long poll, %v", seen), fmt.Sprint(a.status, a.header, a.body))
	}
}
