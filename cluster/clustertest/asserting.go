package clustertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// hitsEnv names the file that the engine's own assertions are written to, where they
// are compiled in: go test -tags enable_antithesis_sdk.
const hitsEnv = "ANTITHESIS_SDK_LOCAL_OUTPUT"

// hit is one line of that file.
type hit struct {
	Assert *struct {
		Hit       bool            `json:"hit"`
		Type      string          `json:"assert_type"`
		Display   string          `json:"display_type"`
		Message   string          `json:"message"`
		Condition bool            `json:"condition"`
		Details   json.RawMessage `json:"details"`
	} `json:"antithesis_assert"`
}

// broken tells whether the line says that something happened which never may. That
// the library itself runs without cgo is none of our business.
func (h *hit) broken() bool {
	a := h.Assert
	return a != nil && a.Hit && !a.Condition && a.Type != "sometimes" && !strings.Contains(a.Message, "CGO")
}

// checkAssertions fails the test where the engine found itself broken.
func (r *Region) checkAssertions() {
	r.t.Helper()
	for _, n := range r.nodes {
		if n.hits == "" {
			continue
		}
		data, err := os.ReadFile(n.hits)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.t.Errorf("assertions of %s: %v", n, err)
		}
		for _, text := range brokenLines(data) {
			r.t.Errorf("the engine of %s broke an assertion of its own: %s", n, text)
		}
	}
}

func brokenLines(data []byte) (list []string) {
	for line := range bytes.Lines(data) {
		var h hit
		// The last line of a killed node may be half.
		if json.Unmarshal(line, &h) == nil && h.broken() {
			list = append(list, h.Assert.Display+" "+h.Assert.Message+" "+string(h.Assert.Details))
		}
	}
	return list
}
