package bus

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEscapeKey(t *testing.T) {
	for _, c := range []struct {
		tokens []string
		want   string
	}{
		{[]string{"eu", "SKU-1_a"}, "eu.SKU-1_a"},
		{[]string{""}, "="},
		{[]string{"", "a", ""}, "=.a.="},
		{[]string{"a.b", "c d"}, "a=2Eb.c=20d"},
		{[]string{"=", "*", ">"}, "=3D.=2A.=3E"},
		{[]string{"Größe"}, "Gr=C3=B6=C3=9Fe"},
	} {
		if got := EscapeKey(c.tokens...); got != c.want || !keyValid(got) {
			t.Errorf("%q: %s, want %s", c.tokens, got, c.want)
		}
		got, err := UnescapeKey(c.want)
		if diff := cmp.Diff(c.tokens, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.want, err, diff)
		}
	}
}

func TestUnescapeKeyRefuses(t *testing.T) {
	for _, key := range []string{".", "a.", ".a", "a..b", "=4", "==", "=41", "=3d", "=2e", "=ZZ", "a=", "a b", "ü", "/", "*"} {
		_, err := UnescapeKey(key)
		if err == nil {
			t.Errorf("%q was taken", key)
			continue
		}
		wantErr(t, err, ErrName)
	}
}

func TestKeyValid(t *testing.T) {
	for key, want := range map[string]bool{
		"a": true, "a.b": true, "=": true, "a/b": true, "": false, ".": false, ".a": false, "a.": false, "a..b": false,
		"a b": false, "a*": false, ">": false, "ü": false, "a\"b": false,
	} {
		if keyValid(key) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

// What comes back is what went in, so no two lists share a key.
func TestEscapeKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "tokens")
		key := EscapeKey(tokens...)
		if !keyValid(key) {
			t.Fatalf("invalid key %q", key)
		}
		got, err := UnescapeKey(key)
		if diff := cmp.Diff(tokens, got); err != nil || diff != "" {
			t.Fatalf("%s: %v %s", key, err, diff)
		}
	})
}

// A key which is taken is the only one for its tokens.
func FuzzUnescapeKey(f *testing.F) {
	for _, s := range []string{"", "=", "a.b", "a=2Eb", "=41", "=2e", "a..b", "=.=", "=C3=B6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		tokens, err := UnescapeKey(key)
		if err != nil {
			return
		}
		if again := EscapeKey(tokens...); again != key {
			t.Fatalf("%q became %q", key, again)
		}
	})
}
