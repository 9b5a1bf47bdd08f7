package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// adminNode answers on its admin port by routes such as "POST /activate".
func adminNode(t *testing.T, routes map[string]http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	for route, handle := range routes {
		mux.HandleFunc(route, handle)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// says answers so, whatever is asked.
func says(status int, answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}
}

func problem(status int, detail string) http.HandlerFunc {
	return says(status, fmt.Sprintf(`{"code":"bad_request","status":%d,"detail":%q}`, status, detail))
}

const nodesAnswer = `{"nodes":[{"name":"n1","online":true,"current":true,"leader":true,"lag":0},
	{"name":"n2","online":false,"current":false,"leader":false,"lag":71}],"replicas":3}`

func TestNodeList(t *testing.T) {
	url := adminNode(t, map[string]http.HandlerFunc{"GET /nodes": says(200, nodesAnswer)})
	want := `NODE  ONLINE  CURRENT  LEADER  LAG
n1    yes     yes      yes     0
n2    no      no       no      71
Copies of the data: 3
`
	if d := cmp.Diff(want, mustLocal(t, "node", "list", "--admin", url)); d != "" {
		t.Error(d)
	}
	t.Setenv("STOCKMESH_ADMIN", url)
	want = `{"nodes":[{"name":"n1","online":true,"current":true,"leader":true,"lag":0},` +
		`{"name":"n2","online":false,"current":false,"leader":false,"lag":71}],"replicas":3}` + "\n"
	if d := cmp.Diff(want, mustLocal(t, "node", "list", "--json")); d != "" {
		t.Error(d)
	}
}

func TestNodeRemove(t *testing.T) {
	url := adminNode(t, map[string]http.HandlerFunc{
		"DELETE /nodes/{name}": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("force") != "true" && r.PathValue("name") == "n2" {
				problem(409, "the node is alive: n2: stop it first")(w, r)
				return
			}
			fmt.Fprintf(w, `{"removed":%q}`, r.PathValue("name"))
		},
	})
	if out := mustLocal(t, "node", "remove", "n3", "--admin", url); !strings.HasPrefix(out, "Removed n3.") {
		t.Errorf("printed %q", out)
	}
	wantRefusal(t, "the node is alive: n2: stop it first\n  answered by "+url+" with 409 Conflict\n  a node that is alive is removed with --force only",
		"node", "remove", "n2", "--admin", url)
	if out := mustLocal(t, "node", "remove", "n2", "--force", "--json", "--admin", url); out != `{"removed":"n2"}`+"\n" {
		t.Errorf("printed %q", out)
	}
	wantRefusal(t, "NAME must be", "node", "remove", "../activate", "--admin", url)
}

func TestNodeReplicas(t *testing.T) {
	url := adminNode(t, map[string]http.HandlerFunc{
		"PUT /replicas": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch string(body) {
			case `{"replicas":3}`:
				w.Write(body)
			case `{"replicas":5}`:
				problem(409, "5 copies need as many nodes, there are 3")(w, r)
			default:
				problem(400, "replicas are 1, 3 or 5")(w, r)
			}
		},
	})
	if out := mustLocal(t, "node", "replicas", "3", "--admin", url); out != "Copies of the data: 3\n" {
		t.Errorf("printed %q", out)
	}
	wantRefusal(t, "5 copies need as many nodes, there are 3\n", "node", "replicas", "5", "--admin", url)
	wantRefusal(t, "replicas are 1, 3 or 5\n", "node", "replicas", "4", "--admin", url)
	wantRefusal(t, "the copies must be a whole number", "node", "replicas", "three", "--admin", url)
}

func TestActivate(t *testing.T) {
	active := false
	url := adminNode(t, map[string]http.HandlerFunc{
		"POST /activate": func(w http.ResponseWriter, r *http.Request) {
			if active {
				problem(409, "the region takes writes already")(w, r)
				return
			}
			active = true
			fmt.Fprint(w, `{"status":"active"}`)
		},
	})
	wantRefusal(t, "--yes says that it is", "activate", "--admin", url)
	if active {
		t.Fatal("it was activated without --yes")
	}
	if out := mustLocal(t, "activate", "--yes", "--admin", url); !strings.Contains(out, "takes writes now") {
		t.Errorf("printed %q", out)
	}
	wantRefusal(t, "the region takes writes already\n  answered by "+url+" with 409 Conflict", "activate", "--yes", "--admin", url)
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"yes\n": true, " YES\r\n": true, "yes": true, "y\n": false, "\n": false, "": false, "no\nyes\n": false} {
		if err := confirm(t.Context(), strings.NewReader(answer), io.Discard, "?"); (err == nil) != want {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
}

func TestConfirmIsInterrupted(t *testing.T) {
	in, person := io.Pipe()
	defer person.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := confirm(ctx, in, io.Discard, "?"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestAdminRefusals(t *testing.T) {
	list := func(url string) []string { return []string{"node", "list", "--admin", url} }
	wantRefusal(t, "cannot reach 127.0.0.1:1: is a node running there?", list("http://127.0.0.1:1")...)
	wantRefusal(t, "404 Not Found: is that the admin port of a node?", list(adminNode(t, nil))...)
	wantRefusal(t, "502 Bad Gateway", list(adminNode(t, map[string]http.HandlerFunc{"/": says(502, "<html>")}))...)
	wantRefusal(t, "unreadable answer", list(adminNode(t, map[string]http.HandlerFunc{"/": says(200, "<html>")}))...)
	wantRefusal(t, "the node is still starting\n", list(adminNode(t, map[string]http.HandlerFunc{"/": problem(503, "the node is still starting")}))...)
	wantRefusal(t, "--admin: endpoint", list("ftp://a")...)
	redirect := http.RedirectHandler("/nodes", http.StatusFound).ServeHTTP
	url := adminNode(t, map[string]http.HandlerFunc{"GET /nodes": says(200, `{"status":"active"}`), "POST /activate": redirect})
	wantRefusal(t, "302 Found", "activate", "--yes", "--admin", url)
}

func TestAdminURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:8081": "http://127.0.0.1:8081",
		"https://eu-1.internal": "https://eu-1.internal",
		"eu-1":                  "http://eu-1:8081",
		"eu-1:9000":             "http://eu-1:9000",
		":9000":                 "http://localhost:9000", // what nodes listen at
		"0.0.0.0:9000":          "http://localhost:9000",
		"[::]:9000":             "http://localhost:9000",
		"[::1]:9000":            "http://[::1]:9000",
	} {
		if got, err := adminURL(in); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestAdminIsTheNodesDefault(t *testing.T) {
	t.Setenv("STOCKMESH_ADMIN", "")
	if out := mustLocal(t, "activate", "--help"); !strings.Contains(out, `(default "http://127.0.0.1:8081")`) {
		t.Errorf("printed %q", out)
	}
}
