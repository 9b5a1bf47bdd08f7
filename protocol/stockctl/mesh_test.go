package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// heardText is how the time in meshAnswer is printed here.
var heardText = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Local().Format("2006-01-02 15:04:05")

const meshAnswer = `{"region":"eu","node":"eu-2","regions":[
	{"name":"eu","state":"serving","lag_ms":0,"heard_at":"2026-01-01T00:00:00.000Z","nodes":[
		{"name":"eu-1","endpoint":"ws://eu-1:8080","state":"serving","owner_of":[0,2],"connections":12},
		{"name":"eu-2","endpoint":"ws://eu-2:8080","state":"draining","owner_of":[],"connections":3}]},
	{"name":"us","state":"cut_off","lag_ms":2500,"heard_at":"2026-01-01T00:00:00.000Z","nodes":[]},
	{"name":"asia","state":"catching_up","lag_ms":40,"heard_at":"2026-01-01T00:00:00.000Z","nodes":[
		{"name":"eu-2","endpoint":"ws://asia:8080","state":"serving","owner_of":[0],"connections":1}]}]}`

// meshNode answers GET /v1/mesh so, to those with the token "t".
func meshNode(t *testing.T, status int, answer string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.Path != "GET /v1/mesh" || r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestMesh(t *testing.T) {
	t.Setenv("STOCKMESH_TOKEN", "t")
	node := meshNode(t, 200, meshAnswer)
	want := `REGION            LAG   HEARD                NODE    STATE     OWNER OF  CONNECTIONS  ENDPOINT
eu                0s    -                    eu-1    serving   0,2       12           ws://eu-1:8080
eu                0s    -                    eu-2 *  draining  -         3            ws://eu-2:8080
us cut_off        2.5s  ` + heardText + `  -       -         -         -            -
asia catching_up  40ms  ` + heardText + `  eu-2    serving   0         1            ws://asia:8080
`
	for _, endpoint := range []string{node, strings.Replace(node, "http", "ws", 1), strings.TrimPrefix(node, "http://"), "http://127.0.0.1:1," + node} {
		if d := cmp.Diff(want, mustLocal(t, "mesh", "--endpoint", endpoint)); d != "" {
			t.Error(endpoint, d)
		}
	}
	out := mustLocal(t, "mesh", "--endpoint", node, "--json")
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, `"owner_of":[0,2]`) {
		t.Errorf("printed %q", out)
	}
}

func TestMeshRefusals(t *testing.T) {
	t.Setenv("STOCKMESH_TOKEN", "t")
	good := meshNode(t, 200, meshAnswer)
	forbidden := meshNode(t, 403, `{"code":"forbidden","detail":"needs the admin grant"}`)
	away := meshNode(t, 503, `{"code":"unavailable","detail":"starting","retryable":true}`)
	ask := func(endpoints ...string) []string {
		return []string{"mesh", "--endpoint", strings.Join(endpoints, ",")}
	}
	wantRefusal(t, "forbidden: needs the admin grant", ask(forbidden, good)...)
	wantRefusal(t, "unavailable: starting", ask(away)...)
	mustLocal(t, ask(away, good)...)
	wantRefusal(t, "502 Bad Gateway", ask(meshNode(t, 502, "<html>"))...)
	wantRefusal(t, "unreadable answer", ask(meshNode(t, 200, "<html>"))...)
	wantRefusal(t, "cannot reach 127.0.0.1:1: is a node running there?", ask("127.0.0.1:1")...)
	wantRefusal(t, "want ws, wss, http or https", ask("ftp://a")...)
}
