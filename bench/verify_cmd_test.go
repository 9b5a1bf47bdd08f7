package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/bench/verify"
	"github.com/stockmesh/stockmesh/protocol"
)

const verifiedSKUs = 20

// TestVerifyARealNode sells something on a node and holds it against its promises, by
// the command and as a scenario does at its end.
func TestVerifyARealNode(t *testing.T) {
	o, err := parseOptions([]string{"hot-sku", "--spawn", "1", "--dir", t.TempDir()}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := newProgress(log)
	target, err := openTarget(ctx, o, p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := target.close(); err != nil {
			t.Error(err)
		}
	}()
	sellSome(t, "http://"+target.nodes[0].Public)

	result, text := verified(ctx, t, "--endpoints", target.endpoint(0), "--watch", "10ms", "--json")
	if result.Items != verifiedSKUs || result.FaultsTotal != 0 || result.Looked("history") != 3*verifiedSKUs || result.Looked("reservations") != verifiedSKUs {
		t.Errorf("%s", text)
	}

	r := newRound(o, 1, target, p)
	if err := r.invariants(ctx); err != nil || len(r.violations) > 0 || r.numbers["verified_items"] != verifiedSKUs {
		t.Errorf("%v, %q, %v", err, r.violations, r.numbers)
	}
	target.endpoints = []string{"ws://127.0.0.1:1/v1/ws"} // where nobody is
	if err := r.invariants(ctx); err != nil || len(r.violations) != 1 || !strings.Contains(r.violations[0], "could not be held") {
		t.Errorf("%v, %q", err, r.violations)
	}
}

// sellSome counts in, reserves and confirms.
func sellSome(t *testing.T, node string) {
	t.Helper()
	for i := range verifiedSKUs {
		sku := fmt.Sprintf("bench-verified-%d", i)
		post(t, node+"/v1/counts", fmt.Sprintf(`{"key":"c%d","sku":"%s","on_hand":5}`, i, sku))
		id := post(t, node+"/v1/reservations", fmt.Sprintf(`{"key":"r%d","lines":[{"sku":"%s","quantity":2}]}`, i, sku)).Reservation.ID
		post(t, node+"/v1/reservations/"+id+"/confirm", fmt.Sprintf(`{"key":"s%d"}`, i))
	}
}

func post(t *testing.T, url, body string) (answer struct{ Reservation protocol.Reservation }) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("%s: %s %v: %s", url, resp.Status, err, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v: %s", url, err, text)
	}
	return answer
}

// verified runs the command and reads what it wrote.
func verified(ctx context.Context, t *testing.T, args ...string) (result verify.Result, text []byte) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log, err := os.Create(out.Name() + ".log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := run(ctx, append([]string{commandVerify}, args...), out, log); err != nil {
		t.Error(err)
	}
	if text, err = os.ReadFile(out.Name()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return result, text
}

func TestVerifyOptions(t *testing.T) {
	o, err := parseVerifyOptions(strings.Fields("--endpoints ws://a,ws://b --prefix a,b --prefix c --sample -1 --watch 1m"), io.Discard)
	if err != nil || len(o.Endpoints) != 2 || len(o.Prefixes) != 2 || o.Prefixes[0] != "a,b" || o.Sample != -1 || o.Watch != time.Minute || o.Depth != verify.DepthDefault {
		t.Errorf("%+v, %v", o, err)
	}
	var help strings.Builder
	if _, err := parseVerifyOptions([]string{"--help"}, &help); !errors.Is(err, pflag.ErrHelp) || !strings.Contains(help.String(), "--key-window") {
		t.Errorf("%v: %s", err, help.String())
	}
	for _, args := range []string{"", "--endpoints", "--endpoints ws://a more", "--nonsense"} {
		if _, err := parseVerifyOptions(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
