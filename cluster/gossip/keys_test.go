package gossip

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"
)

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, 32) }

func keyLines(fills string) string {
	var b strings.Builder
	for _, f := range []byte(fills) {
		b.WriteString(base64.StdEncoding.EncodeToString(key(f)) + "\n")
	}
	return b.String()
}

// writeKeys puts a file in place as a whole, as a careful operator does.
func writeKeys(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKeyFile(t testing.TB, fills string) string {
	t.Helper()
	return writeKeys(t, filepath.Join(t.TempDir(), "keys"), keyLines(fills))
}

func fills(ring *memberlist.Keyring) (out string) {
	for _, k := range ring.GetKeys() {
		out += string(k[:1])
	}
	return out
}

func TestParseKeys(t *testing.T) {
	k16 := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for content, want := range map[string]string{
		"":                                    "no key in it",
		"# nothing\n\n":                       "no key in it",
		"x!":                                  "line 1 is not base64",
		"\n" + k16 + "\nAAAA":                 "line 3: key size must be 16, 24 or 32 bytes",
		"# c\n " + k16 + " # old\r\n" + k16:   "",
		keyLines("abc") + k16 + "\n" + "# \n": "",
	} {
		keys, err := parseKeys([]byte(content))
		switch {
		case want == "" && (err != nil || len(keys) == 0):
			t.Errorf("%q: %v", content, err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%q: %v", content, err)
		}
	}
}

// Whatever the ring held and the file says now, the ring becomes the file. A
// reader of the ring sees each slice it got unchanged.
func TestInstall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfNDistinct(rapid.ByteRange('a', 'f'), 1, 5, rapid.ID[byte])
		old, now := some.Draw(t, "old"), some.Draw(t, "new")
		toKeys := func(fills []byte) (keys [][]byte) {
			for _, f := range fills {
				keys = append(keys, key(f))
			}
			return keys
		}
		ring, err := memberlist.NewKeyring(toKeys(old), key(old[0]))
		if err != nil {
			t.Fatal(err)
		}
		reader := ring.GetKeys()
		if err := install(ring, toKeys(now)); err != nil {
			t.Fatal(err)
		}
		have := fills(ring)
		if len(have) != len(now) || have[0] != now[0] || strings.Trim(have, string(now)) != "" {
			t.Fatalf("%s became %s, want %s", old, have, now)
		}
		if diff := cmp.Diff(toKeys(old), reader); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestKeyFileLook(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	path := newKeyFile(t, "a")
	k, err := openKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		k.look(log)
		if got := fills(k.ring); got != want {
			t.Fatalf("keys %s, want %s", got, want)
		}
	}
	look("a")
	writeKeys(t, path, keyLines("ab"))
	look("a") // it may be half written
	look("ab")
	for range 3 {
		writeKeys(t, path, "broken")
		look("ab")
		look("ab")
	}
	if n := strings.Count(out.String(), "level=ERROR"); n != 1 {
		t.Fatalf("%d errors logged:\n%s", n, &out)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look("ab")
	writeKeys(t, path, keyLines("bc"))
	look("ab")
	look("bc")
	if n := strings.Count(out.String(), "level=ERROR"); n != 2 {
		t.Fatalf("%d errors logged:\n%s", n, &out)
	}
	if strings.Contains(out.String(), strings.TrimSpace(keyLines("a"))) || strings.Contains(out.String(), "broken") {
		t.Fatalf("key material in the log:\n%s", &out)
	}
}

func TestKeyFileTooLong(t *testing.T) {
	path := writeKeys(t, filepath.Join(t.TempDir(), "keys"), strings.Repeat("#", keyFileBytesMax+1))
	if _, err := openKeyFile(path); err == nil {
		t.Fatal("no error")
	}
}
