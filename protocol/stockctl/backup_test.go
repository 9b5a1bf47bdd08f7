package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const headerLine = `{"region":"eu","shards":1,"node":"n1","incarnation":"4f2a","taken_at":"2026-01-02T03:04:05.000Z","seqs":[1234]}` + "\n"

// sealed ends what is given with its digest.
func sealed(parts ...string) string {
	text := strings.Join(parts, "")
	sum := sha256.Sum256([]byte(text))
	return text + string(sum[:])
}

// goodBackup is longer than any buffer on its way.
func goodBackup() string {
	return sealed(backupMagic, headerLine, strings.Repeat("\x00binary\n", 1<<17))
}

// badBackups are all that a backup can't be, with the reason that must be given.
func badBackups() map[string]struct{ text, want string } {
	good := goodBackup()
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	other := strings.Replace(headerLine, `"region":"eu"`, `"region":"eu; reboot"`, 1)
	return map[string]struct{ text, want string }{
		"empty":            {"", "it ends after 0 bytes"},
		"shorter magic":    {backupMagic[:5], "it ends after 5 bytes"},
		"wrong magic":      {"<html>" + good, "not a backup of stockmesh"},
		"later version":    {strings.Replace(good, "backup 1", "backup 2", 1), "of a version that this stockctl knows"},
		"within header":    {good[:len(backupMagic)+20], "cut short"},
		"header only":      {backupMagic + headerLine, "digest does not match"},
		"header no JSON":   {sealed(backupMagic, "{\n", "x"), "header"},
		"header endless":   {sealed(backupMagic, strings.Repeat("x", 1<<20)), "its header has no end"},
		"no name":          {sealed(backupMagic, other, "x"), "region must be"},
		"too few rounds":   {sealed(backupMagic, strings.Replace(headerLine, "[1234]", "[]", 1)), "1 shards, but the rounds of 0"},
		"truncated":        {good[:len(good)/2], "digest does not match"},
		"without digest":   {good[:len(good)-sha256.Size], "digest does not match"},
		"one byte short":   {good[:len(good)-1], "digest does not match"},
		"one byte more":    {good + "x", "digest does not match"},
		"wrong digest":     {good[:len(good)-sha256.Size] + strings.Repeat("\x00", sha256.Size), "digest does not match"},
		"one flipped byte": {string(flipped), "digest does not match"},
	}
}

func TestBackupCheckTakesAnySlices(t *testing.T) {
	good := sealed(backupMagic, headerLine, "content")
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(good), "bytes": iotest.OneByteReader(strings.NewReader(good)), "halves": iotest.HalfReader(strings.NewReader(good)),
	} {
		var copied bytes.Buffer
		sum, err := copyBackup(r, &copied)
		if err != nil || sum.Region != "eu" || sum.Bytes != int64(len(good)) || copied.String() != good {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
	}
}

func TestBadBackupsAreFound(t *testing.T) {
	for name, bad := range badBackups() {
		for _, r := range []io.Reader{strings.NewReader(bad.text), iotest.OneByteReader(strings.NewReader(bad.text))} {
			if _, err := copyBackup(r); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("%s: error is %v, want %q in it", name, err, bad.want)
			}
		}
	}
}

func backupNode(t *testing.T, text string) string {
	return adminNode(t, map[string]http.HandlerFunc{"GET /backup": says(200, text)})
}

// wantFiles checks that the folder holds these files and no other.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func wantPrivate(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("%s has mode %o", file, mode)
	}
}

func TestBackup(t *testing.T) {
	url, dir := backupNode(t, goodBackup()), t.TempDir()
	file := filepath.Join(dir, "eu.stockmesh")
	out := mustLocal(t, "backup", "--out", file, "--admin", url)
	if want := file + ": 1.0 MB, region eu, 1 shard, up to round 1234, taken by node n1 at 2026-01-0"; !strings.HasPrefix(out, want) {
		t.Errorf("printed %q, want %q", out, want)
	}
	if string(read(t, file)) != goodBackup() {
		t.Error("the file differs from what the node sent")
	}
	wantFiles(t, dir, "eu.stockmesh")
	wantPrivate(t, file)
	out = mustLocal(t, "backup", "--out", filepath.Join(dir, "b"), "--admin", url, "--json")
	if want := `"region":"eu","shards":1,"node":"n1","incarnation":"4f2a","taken_at":"2026-01-02T03:04:05.000Z","seqs":[1234]}` + "\n"; !strings.HasSuffix(out, want) {
		t.Errorf("printed %q", out)
	}
}

func TestBadBackupsAreNotKept(t *testing.T) {
	for name, bad := range badBackups() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wantRefusal(t, bad.want, "backup", "--out", filepath.Join(dir, "eu"), "--admin", backupNode(t, bad.text))
			wantFiles(t, dir)
		})
	}
}

// aborted sends half a backup and breaks the connection.
func aborted(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, goodBackup()[:1<<19])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestBackupBrokenOff(t *testing.T) {
	url, dir := adminNode(t, map[string]http.HandlerFunc{"GET /backup": aborted}), t.TempDir()
	wantRefusal(t, "the node broke the backup off", "backup", "--out", filepath.Join(dir, "eu"), "--admin", url)
	wantFiles(t, dir)
	wantRefusal(t, "what was written is no backup: the node broke the backup off", "backup", "--out", "-", "--admin", url)
}

func TestInterruptedBackup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := adminNode(t, map[string]http.HandlerFunc{"GET /backup": func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, goodBackup()[:1<<19])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}})
	dir := t.TempDir()
	err := run(ctx, []string{"backup", "--out", filepath.Join(dir, "eu"), "--admin", url}, io.Discard, io.Discard)
	if err == nil || explain(err) != "interrupted" {
		t.Errorf("error is %v", err)
	}
	wantFiles(t, dir)
}

func TestBackupToOutput(t *testing.T) {
	var out, errOut bytes.Buffer
	err := run(t.Context(), []string{"backup", "--out", "-", "--admin", backupNode(t, goodBackup())}, &out, &errOut)
	if err != nil || out.String() != goodBackup() || !strings.HasPrefix(errOut.String(), "1.0 MB, region eu") {
		t.Errorf("%v, %d bytes, %q", err, out.Len(), errOut.String())
	}
	wantRefusal(t, "what was written is no backup", "backup", "--out", "-", "--admin", backupNode(t, goodBackup()+"x"))
}

func TestBackupOverwritesNothing(t *testing.T) {
	url, dir := backupNode(t, goodBackup()), t.TempDir()
	file := filepath.Join(dir, "eu")
	put(t, file, "old")
	args := []string{"backup", "--out", file, "--admin", url}
	wantRefusal(t, file+" is there already; --force replaces it", args...)
	wantRefusal(t, "digest", "backup", "--out", file, "--force", "--admin", backupNode(t, goodBackup()+"x"))
	if got := string(read(t, file)); got != "old" {
		t.Fatalf("it was replaced by %d bytes", len(got))
	}
	mustLocal(t, append(args, "--force")...)
	put(t, file+"2.partial", "of another backup")
	wantRefusal(t, "it is being written, or was left by one that was killed", "backup", "--out", file+"2", "--admin", url)
	mustLocal(t, "backup", "--out", file+"2", "--force", "--admin", url)
	wantPrivate(t, file+"2")
	wantFiles(t, dir, "eu", "eu2")
	wantRefusal(t, "no regular file", "backup", "--out", dir, "--force", "--admin", url)
	wantRefusal(t, "no such file or directory", "backup", "--out", filepath.Join(dir, "none", "eu"), "--admin", url)
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPartialThatWasTakenIsNotCommitted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "eu")
	first, err := createPartial(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.drop()
	second, err := createPartial(file, true)
	if err != nil {
		t.Fatal(err)
	}
	defer second.drop()
	if err := first.commit(); err == nil || !strings.Contains(err.Error(), "was replaced meanwhile") {
		t.Errorf("error is %v", err)
	}
	first.drop()
	if err := second.commit(); err != nil {
		t.Error(err)
	}
	wantFiles(t, filepath.Dir(file), "eu")
}

func TestByteText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 12_345_678: "12.3 MB", 5e18: "5.0 EB"} {
		if got := byteText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
