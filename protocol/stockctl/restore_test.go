package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// restoreInput restores what is on the input.
func restoreInput(t *testing.T, in io.Reader, dir string) error {
	t.Helper()
	cmd := newRoot(&app{out: io.Discard, errOut: io.Discard})
	cmd.SetArgs([]string{"restore", "-", "--data", dir})
	cmd.SetIn(in)
	return cmd.ExecuteContext(t.Context())
}

func TestRestore(t *testing.T) {
	dir := t.TempDir()
	file, data := filepath.Join(dir, "eu.stockmesh"), filepath.Join(dir, "my data")
	put(t, file, goodBackup())
	out := mustLocal(t, "restore", file, "--data", data)
	for _, want := range []string{
		filepath.Join(data, restoreFile) + ": 1.0 MB, region eu, 1 shard, up to round 1234",
		"--data '" + data + "' --region eu --shards 1\n", "this node's directory ONLY", "read-only", "stockctl activate",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, want %q in it", out, want)
		}
	}
	if string(read(t, filepath.Join(data, restoreFile))) != goodBackup() {
		t.Error("the copy differs")
	}
	wantFiles(t, data, restoreFile)
	wantPrivate(t, filepath.Join(data, restoreFile))
	wantRefusal(t, "is not empty: it holds "+restoreFile, "restore", file, "--data", data)
}

func TestRestoreFromTheInput(t *testing.T) {
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := restoreInput(t, strings.NewReader(goodBackup()), data); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, data, "lost+found", restoreFile)
}

func TestBadBackupsAreNotRestored(t *testing.T) {
	for name, bad := range badBackups() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "eu"), bad.text)
			data := filepath.Join(dir, "data")
			wantRefusal(t, bad.want, "restore", filepath.Join(dir, "eu"), "--data", data)
			if err := restoreInput(t, strings.NewReader(bad.text), data); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("error is %v, want %q in it", err, bad.want)
			}
			wantFiles(t, dir, "eu")
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := restoreInput(t, strings.NewReader(bad.text), data); err == nil {
				t.Error("it was restored")
			}
			wantFiles(t, data)
		})
	}
}

func TestRestoreRefusesWhatIsNotEmpty(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "eu")
	put(t, file, goodBackup())
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(data, "stockmesh.json"), "{}")
	wantRefusal(t, "is not empty: it holds stockmesh.json", "restore", file, "--data", data)
	wantFiles(t, data, "stockmesh.json")
	wantRefusal(t, "not a directory", "restore", file, "--data", file)
	wantRefusal(t, "--data is empty", "restore", file, "--data", "")
	wantRefusal(t, "no such file", "restore", file+"2", "--data", filepath.Join(dir, "new"))
	wantFiles(t, dir, "data", "eu")
}

// TestRestoreHelpTellsTheWholeWay: the procedure is looked up when there is no time to
// search for it.
func TestRestoreHelpTellsTheWholeWay(t *testing.T) {
	out := mustLocal(t, "restore", "--help")
	at := 0
	for _, step := range []string{"Keep clients away", "stockctl backup", "Stop the node", "stockctl restore", "Start all three", "stockctl node list", "stockctl activate", "Let clients in"} {
		i := strings.Index(out[at:], step)
		if i < 0 {
			t.Fatalf("%q is missing, or comes too early", step)
		}
		at += i
	}
}

func TestBackupIsWhatRestoreReads(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	err := run(t.Context(), []string{"backup", "--out", "-", "--admin", backupNode(t, goodBackup())}, &out, io.Discard)
	if err == nil {
		err = restoreInput(t, &out, filepath.Join(dir, "data"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if string(read(t, filepath.Join(dir, "data", restoreFile))) != goodBackup() {
		t.Error("the copy differs")
	}
}
