package server

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func secretOf(fill byte) string { return strings.Repeat(string(fill), linkSecretBytes) }

// writeLinkSecrets puts a keyring in place as a whole, as a careful operator does.
func writeLinkSecrets(t *testing.T, file string, fills ...byte) string {
	t.Helper()
	var text bytes.Buffer
	for _, f := range fills {
		text.WriteString(base64.StdEncoding.EncodeToString([]byte(secretOf(f))) + "\n")
	}
	if err := os.WriteFile(file+".new", text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Keys are rolled without a restart, and a broken file leaves the old ones standing.
func TestLinkSecretsAreReadAgain(t *testing.T) {
	file := writeLinkSecrets(t, filepath.Join(t.TempDir(), "link.key"), 'a')
	var logged bytes.Buffer
	l, err := newLinkSecrets(file, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	want := func(fills ...byte) {
		t.Helper()
		l.checked = time.Time{} // as if the last look were long ago
		var secrets []string
		for _, f := range fills {
			secrets = append(secrets, secretOf(f))
		}
		if d := cmp.Diff(secrets, l.current()); d != "" {
			t.Fatal(d)
		}
	}
	want('a')
	writeLinkSecrets(t, file, 'a', 'b')
	if got := l.current(); len(got) != 1 {
		t.Fatal("it looks at the file each time")
	}
	want('a', 'b')
	writeLinkSecrets(t, file, 'b', 'a', 'b')
	want('b', 'a')
	for _, broken := range []string{"", "half a fi", strings.Repeat("x", linkSecretFileBytesMax+1)} {
		if err := os.WriteFile(file, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		logged.Reset()
		want('b', 'a')
		want('b', 'a')
		if n := strings.Count(logged.String(), "the old ones stay"); n != 1 {
			t.Errorf("%d lines:\n%s", n, logged.String())
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want('b', 'a')
	writeLinkSecrets(t, file, 'c')
	want('c')
}

func TestParseLinkSecrets(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte(secretOf('a')))
	short := base64.StdEncoding.EncodeToString([]byte("c2VjcmV0c2VjcmV0"))
	for text, want := range map[string]string{
		key: "",
		"# made today\n\n  " + key + " # old\r\n" + key: "",
		"":                   "no key in it",
		"# none\n":           "no key in it",
		key + "\n\n" + short: "line 3 is no key of 32 bytes",
		key + " " + key:      "line 1 is no key",
		"x!":                 "line 1 is no key",
	} {
		got, err := parseLinkSecrets(text)
		if want == "" {
			if d := cmp.Diff([]string{secretOf('a')}, got); d != "" || err != nil {
				t.Errorf("%q: %v %s", text, err, d)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), short) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
