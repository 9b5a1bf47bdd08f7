package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// What a build stamps, and that it does, is looked at where the image is built.
func TestVersion(t *testing.T) {
	text, err := local(t, "version")
	if err != nil || !strings.HasPrefix(text, "stockctl ") || !strings.HasSuffix(text, runtime.Version()+"\n") {
		t.Errorf("got %q %v", text, err)
	}
	line, err := local(t, "version", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var s stamp
	if err := json.Unmarshal([]byte(line), &s); err != nil || s.Go != runtime.Version() {
		t.Errorf("got %+v %v", s, err)
	}
}
