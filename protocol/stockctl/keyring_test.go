package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// keyLines returns the lines of a keyring.
func keyLines(t *testing.T, file string) []string {
	t.Helper()
	text := string(read(t, file))
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line of %q doesn't end", text)
	}
	return strings.Fields(text)
}

func TestGossipKeyIsPrinted(t *testing.T) {
	first, second := mustLocal(t, "certs", "gossip-key"), mustLocal(t, "certs", "gossip-key")
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(first)); err != nil || len(key) != 32 || first == second {
		t.Errorf("printed %q, then %q", first, second)
	}
}

func TestGossipKeyRotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "gossip.key")
	step := func(flags ...string) (string, []string) {
		out := mustLocal(t, append([]string{"certs", "gossip-key", "--out", file}, flags...)...)
		return out, keyLines(t, file)
	}
	out, created := step()
	if len(created) != 1 || !strings.Contains(out, "--gossip-key "+file) {
		t.Fatalf("created %v, printed %q", created, out)
	}
	old := created[0]
	out, added := step("--add")
	if len(added) != 2 || added[0] != old || added[1] == old || !strings.Contains(out, "--promote") {
		t.Fatalf("added: %v, printed %q", added, out)
	}
	fresh := added[1]
	out, promoted := step("--promote")
	if d := cmp.Diff([]string{fresh, old}, promoted); d != "" || !strings.Contains(out, "--retire") {
		t.Error(d, out)
	}
	_, retired := step("--retire")
	if d := cmp.Diff([]string{fresh}, retired); d != "" {
		t.Error(d)
	}
	key, err := base64.StdEncoding.DecodeString(fresh)
	if err != nil {
		t.Fatal(err)
	}
	out, again := step("--retire", "--json")
	want := `{"file":"` + file + `","keys":1,"in_use":"` + fingerprint(key) + `"}` + "\n"
	if d := cmp.Diff(want, out) + cmp.Diff(retired, again); d != "" {
		t.Error(d)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A secret of links is made and rotated as a gossip key is.
func TestLinkSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "link.key")
	out := mustLocal(t, "certs", "link-secret", "--out", file)
	if !strings.Contains(out, "--link-secret "+file) {
		t.Errorf("printed %q", out)
	}
	first := keyLines(t, file)
	mustLocal(t, "certs", "link-secret", "--out", file, "--add")
	if added := keyLines(t, file); len(added) != 2 || added[0] != first[0] {
		t.Errorf("%v after %v", added, first)
	}
	help := mustLocal(t, "certs", "link-secret", "--help")
	if !strings.Contains(help, "nodes' --link-secret") || strings.Contains(help, "gossip") {
		t.Errorf("printed %q", help)
	}
}

func TestPromoteKeepsTheOrderOfOthers(t *testing.T) {
	got, err := keyring{{1}, {2}, {3}}.promote()
	if d := cmp.Diff(keyring{{3}, {1}, {2}}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestGossipKeyRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gossip.key")
	command := func(args ...string) []string { return append([]string{"certs", "gossip-key"}, args...) }
	mustLocal(t, command("--out", file)...)
	before := keyLines(t, file)
	wantRefusal(t, "is there already; --force replaces it, --add adds a key", command("--out", file)...)
	wantRefusal(t, "one key only; --add another first", command("--out", file, "--promote")...)
	wantRefusal(t, "need --out FILE", command("--add")...)
	wantRefusal(t, "none of the others can be", command("--out", file, "--add", "--retire")...)
	wantRefusal(t, "no such file", command("--out", filepath.Join(dir, "none"), "--add")...)
	if d := cmp.Diff(before, keyLines(t, file)); d != "" {
		t.Error(d)
	}
	mustLocal(t, command("--out", file, "--force")...)
	if keyLines(t, file)[0] == before[0] {
		t.Error("--force kept the key")
	}

	secret := strings.Repeat("c2VjcmV0", 2)
	for text, want := range map[string]string{
		"":                              "holds no key",
		before[0] + "\n\n" + secret:     "line 3: not a key of 32 bytes",
		"# " + secret + "\n":            "line 1: not a key",
		before[0][:20] + "\n" + secret:  "line 1: not a key",
		before[0] + " " + before[0][:4]: "line 1: not a key",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, want, command("--out", file, "--add")...)
		if _, err := local(t, command("--out", file, "--add")...); strings.Contains(err.Error(), secret) {
			t.Errorf("the error gives a key away: %v", err)
		}
	}
}
