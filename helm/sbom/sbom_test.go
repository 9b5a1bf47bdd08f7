package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
)

func unset(string) (string, bool) { return "", false }

// self is a Go program with modules in it that need not be built first.
func self(t *testing.T) string {
	t.Helper()
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func listed(t *testing.T, look func(string) (string, bool), args ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, look, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decoded(t *testing.T, content []byte) *cdx.BOM {
	t.Helper()
	bom := new(cdx.BOM)
	if err := json.Unmarshal(content, bom); err != nil {
		t.Fatal(err)
	}
	return bom
}

func TestEveryModuleOfABinary(t *testing.T) {
	file := self(t)
	bom := decoded(t, listed(t, unset, "--version", "1.4.0", file))
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) == 0 {
		t.Fatal("nothing to look for")
	}
	want := []string{"stdlib@" + strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go")}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	got := make(map[string]bool)
	for _, c := range *bom.Components {
		got[c.Name+"@"+c.Version] = true
	}
	for _, m := range want {
		if !got[m] {
			t.Errorf("%s is missing", m)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d parts, want %d", len(got), len(want))
	}
	program := bom.Metadata.Component
	if program.Version != "1.4.0" || program.Hashes == nil || len((*program.Hashes)[0].Value) != 64 {
		t.Errorf("got %+v", program)
	}
	if refs := (*bom.Dependencies)[0]; refs.Ref != program.BOMRef || len(*refs.Dependencies) != len(want) {
		t.Errorf("got %+v", refs)
	}
}

func TestSameBytes(t *testing.T) {
	first := listed(t, unset, self(t))
	if again := listed(t, unset, self(t)); !bytes.Equal(first, again) {
		t.Error(cmp.Diff(string(first), string(again)))
	}
	other := decoded(t, listed(t, unset, "--version", "2.0.0", self(t)))
	if bom := decoded(t, first); bom.SerialNumber == "" || bom.SerialNumber == other.SerialNumber {
		t.Errorf("serial number %q, of another list %q", bom.SerialNumber, other.SerialNumber)
	}
}

func TestDate(t *testing.T) {
	epoch := func(v string) func(string) (string, bool) {
		return func(name string) (string, bool) { return v, name == "SOURCE_DATE_EPOCH" }
	}
	for name, c := range map[string]struct {
		flag string
		look func(string) (string, bool)
		want string
		bad  string
	}{
		"none":              {look: unset},
		"flag":              {flag: "2026-01-02T03:04:05+02:00", look: epoch("1"), want: "2026-01-02T01:04:05Z"},
		"environment":       {look: epoch("1700000000"), want: "2023-11-14T22:13:20Z"},
		"empty environment": {look: epoch("")},
		"bad flag":          {flag: "today", look: unset, bad: "--date"},
		"bad environment":   {look: epoch("today"), bad: "SOURCE_DATE_EPOCH"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := timestamp(c.flag, c.look)
			if got != c.want || (err != nil) != (c.bad != "") {
				t.Fatalf("got %q %v, want %q", got, err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.bad) {
				t.Errorf("got %v, want word of %s", err, c.bad)
			}
		})
	}
}

func TestParts(t *testing.T) {
	b := &binary{sha256: "00", info: &debug.BuildInfo{
		GoVersion: "go1.26.8 X:nocoverageredesign", Path: "example.com/m/cmd/p",
		Main: debug.Module{Path: "example.com/m", Version: devel},
		Deps: []*debug.Module{
			{Path: "example.com/Upper", Version: "v1.0.0+incompatible", Sum: "h1:a="},
			{Path: "example.com/forked", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/fork", Version: "v1.0.1", Sum: "h1:b="}},
			{Path: "example.com/local", Version: "v1.0.0", Replace: &debug.Module{Path: "../local"}},
		},
	}}
	bom := b.list("", "")
	got := make(map[string][]string)
	for _, c := range append(*bom.Components, *bom.Metadata.Component) {
		var said []string
		if c.Properties != nil {
			for _, p := range *c.Properties {
				said = append(said, p.Name+"="+p.Value)
			}
		}
		got[c.PackageURL] = append([]string{c.Name}, said...)
	}
	want := map[string][]string{
		"pkg:golang/example.com/m#cmd/p":                     {"p", "go:package=example.com/m/cmd/p"},
		"pkg:golang/stdlib@1.26.8":                           {"stdlib", "go:experiments=X:nocoverageredesign"},
		"pkg:golang/example.com/upper@v1.0.0%2Bincompatible": {"example.com/Upper", "go:h1=h1:a="},
		"pkg:golang/example.org/fork@v1.0.1":                 {"example.org/fork", "go:replaces=example.com/forked@v1.0.0", "go:h1=h1:b="},
		"pkg:golang/example.com/local":                       {"example.com/local", "go:replaced-by-folder=../local", "go:replaces=example.com/local@v1.0.0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no binary":     {nil, "want one BINARY"},
		"two binaries":  {[]string{"a", "b"}, "want one BINARY"},
		"not Go":        {[]string{text}, text},
		"not there":     {[]string{text + ".not"}, "no such file"},
		"unknown flag":  {[]string{"--format", "xml", text}, "unknown flag"},
		"date of words": {[]string{"--date", "today", text}, "--date"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(c.args, unset, &out, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want word of %q", err, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("wrote %s", out.String())
			}
		})
	}
}
