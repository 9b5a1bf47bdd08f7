package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestRevoke(t *testing.T) {
	t.Setenv("STOCKMESH_TOKEN", "")
	var got revocation
	var body string
	url := adminNode(t, map[string]http.HandlerFunc{"POST /revocations": func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body, got = string(text), revocation{}
		if err := protocol.UnmarshalJSON(text, &got); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, body)
	}})
	day := 24 * time.Hour
	for _, c := range []struct {
		args  []string
		want  revocation
		keep  time.Duration
		print string
	}{
		{[]string{"--token-id", "t-1"}, revocation{TokenID: "t-1"}, 30 * day, "Revoked: token t-1."},
		{[]string{"--token-id", "cert:1f"}, revocation{TokenID: "cert:1f"}, 3650 * day, "Revoked: token cert:1f."},
		{[]string{"--subject", "ada", "--until", "48h"}, revocation{Subject: "ada"}, 2 * day, "Revoked: tokens of ada issued before "},
		{[]string{"--subject", "cert:POS-7"}, revocation{Subject: "cert:POS-7"}, 3650 * day, "tokens of cert:POS-7"},
		{[]string{"--subject", "ada", "--until", time.Now().Add(72 * time.Hour).Format(time.RFC3339)}, revocation{Subject: "ada"}, 3 * day, "Kept until"},
	} {
		out := mustLocal(t, append([]string{"revoke", "--admin", url}, c.args...)...)
		if !strings.Contains(out, c.print) {
			t.Errorf("%v: printed %q", c.args, out)
		}
		if past := time.Since(got.Before.Std()); past < 0 || past > time.Minute {
			t.Errorf("%v: before is %v ago", c.args, past)
		}
		if keep := time.Until(got.Until.Std()); keep > c.keep || keep < c.keep-time.Minute {
			t.Errorf("%v: kept for %v", c.args, keep)
		}
		if got.TokenID != c.want.TokenID || got.Subject != c.want.Subject || strings.Count(body, `":`) != 3 {
			t.Errorf("%v: sent %s", c.args, body)
		}
	}
	out := mustLocal(t, "revoke", "--admin", url, "--subject", "ada", "--before", "2026-07-01T12:00:00Z", "--json")
	if !strings.HasPrefix(out, `{"subject":"ada","before":"2026-07-01T12:00:00.000Z","until":"`) {
		t.Errorf("printed %q", out)
	}
}

func TestRevokeRefusals(t *testing.T) {
	url := adminNode(t, map[string]http.HandlerFunc{"POST /revocations": problem(503, "no quorum")})
	revoke := func(args ...string) []string { return append([]string{"revoke", "--admin", url}, args...) }
	wantRefusal(t, "at least one of the flags in the group [token-id subject] is required", revoke()...)
	wantRefusal(t, "none of the others can be", revoke("--token-id", "a", "--subject", "b")...)
	wantRefusal(t, "--subject must be", revoke("--subject", "")...)
	wantRefusal(t, "--token-id must be", revoke("--token-id", "a\nb")...)
	wantRefusal(t, "--until is over already", revoke("--subject", "a", "--until", "2020-01-01T00:00:00Z")...)
	wantRefusal(t, "--until is over already", revoke("--subject", "a", "--until", "-1h")...)
	wantRefusal(t, "--before: want a time", revoke("--subject", "a", "--before", "yesterday")...)
	wantRefusal(t, "no quorum", revoke("--subject", "a")...)
}

func TestRevocations(t *testing.T) {
	answer := `{"revocations":[
		{"subject":"a\u001b","before":"2026-01-01T00:00:00.000Z","until":"2026-03-01T00:00:00.000Z"},
		{"token_id":"t-1","before":"2026-01-01T00:00:00.000Z","until":"2026-02-01T00:00:00.000Z"}]}`
	url := adminNode(t, map[string]http.HandlerFunc{"GET /revocations": says(200, answer)})
	lines := strings.Split(mustLocal(t, "revocations", "--admin", url), "\n")
	local := func(month time.Month) string {
		return time.Date(2026, month, 1, 0, 0, 0, 0, time.UTC).Local().Format("2006-01-02 15:04:05")
	}
	for i, want := range []string{
		"TOKEN ID SUBJECT ISSUED BEFORE KEPT UNTIL",
		"t-1 - - " + local(2),
		`- "a\x1b" ` + local(1) + " " + local(3),
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
	out := mustLocal(t, "revocations", "--json", "--admin", url)
	if strings.Count(out, "\n") != 2 || !strings.HasPrefix(out, `{"token_id":"t-1","before":"`) {
		t.Errorf("printed %q", out)
	}
	none := adminNode(t, map[string]http.HandlerFunc{"GET /revocations": says(200, `{"revocations":[]}`)})
	if out := mustLocal(t, "revocations", "--json", "--admin", none); out != "" {
		t.Errorf("printed %q", out)
	}
}
