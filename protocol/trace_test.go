package protocol

import (
	"strings"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got, ok := ParseTraceparent(good)
	if !ok || !got.Sampled || got.Trace[0] != 0x0a || got.Trace[15] != 0x9c || got.Span[0] != 0xb7 || got.Span[7] != 0x31 {
		t.Fatalf("%+v, %v", got, ok)
	}
	if again := got.Traceparent(); again != good {
		t.Errorf("%s read, written it is %s", good, again)
	}
	for name, s := range map[string]string{
		"empty":            "",
		"short":            good[:54],
		"longer":           good + "0",
		"version 0 longer": good + "-00",
		"version ff":       "ff" + good[2:],
		"upper case":       strings.ToUpper(good),
		"no hex":           strings.Replace(good, "a", "g", 1),
		"no dash":          strings.Replace(good, "-b", "0b", 1),
		"no trace":         "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"no span":          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"later, no dash":   "01" + good[2:] + "x",
	} {
		if got, ok := ParseTraceparent(s); ok || got.Valid() {
			t.Errorf("%s: %q was read as %+v", name, s, got)
		}
	}
	for s, sampled := range map[string]bool{
		good[:53] + "00":            false,
		good[:53] + "02":            false,
		good[:53] + "ff":            true,
		"cc" + good[2:]:             true,
		"01" + good[2:] + "-later.": true,
	} {
		if got, ok := ParseTraceparent(s); !ok || got.Sampled != sampled {
			t.Errorf("%s: sampled %v, read %v", s, got.Sampled, ok)
		}
	}
}
