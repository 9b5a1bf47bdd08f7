package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRegionList(t *testing.T) {
	url := adminNode(t, map[string]http.HandlerFunc{"GET /regions": says(200, meshAnswer)})
	want := `REGION  STATE        LAG   HEARD                NODES
eu *    serving      0s    -                    2
us      cut_off      2.5s  ` + heardText + `  0
asia    catching_up  40ms  ` + heardText + `  1
`
	if d := cmp.Diff(want, mustLocal(t, "region", "list", "--admin", url)); d != "" {
		t.Error(d)
	}
}

func TestRegionRemoveAndRestore(t *testing.T) {
	answer := func(state string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("name") == "mars" {
				problem(404, "no region mars is known")(w, r)
				return
			}
			fmt.Fprintf(w, `{"region":%q,"state":%q}`, r.PathValue("name"), state)
		}
	}
	url := adminNode(t, map[string]http.HandlerFunc{"DELETE /regions/{name}": answer("removed"), "PUT /regions/{name}": answer("linked")})
	for want, args := range map[string][]string{
		"Removed us. Its nodes are not let in any more.\n":            {"remove", "us"},
		"Restored us. It is linked as soon as its nodes are found.\n": {"restore", "us"},
		`{"region":"us","state":"removed"}` + "\n":                    {"remove", "us", "--json"},
		`{"region":"us-2","state":"linked"}` + "\n":                   {"restore", "us-2", "--json"},
	} {
		if d := cmp.Diff(want, mustLocal(t, append([]string{"region", "--admin", url}, args...)...)); d != "" {
			t.Error(args, d)
		}
	}
	for _, verb := range []string{"remove", "restore"} {
		wantRefusal(t, "no region mars is known\n  answered by "+url+" with 404 Not Found", "region", verb, "mars", "--admin", url)
		wantRefusal(t, "NAME must be", "region", verb, "../nodes/n1", "--admin", url)
	}
	wantRefusal(t, `unknown command "rm"`, "region", "rm")
}
