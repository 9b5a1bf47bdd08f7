package ledger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What stands in testdata was written by earlier versions of this package and is never
// written again: logs and snapshots like it are on disks. The log's rounds are lines of
// hex; the snapshot is that of the log's end.

func golden(t *testing.T, name string) (lines [][]byte) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		b, err := hex.DecodeString(in.Text())
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, b)
	}
	if err := in.Err(); err != nil || len(lines) == 0 {
		t.Fatalf("%s: %d lines, error %v", name, len(lines), err)
	}
	return lines
}

func TestOldLogsAndSnapshotsAreRead(t *testing.T) {
	for _, version := range goldens {
		t.Run(version, func(t *testing.T) {
			s := NewState("eu", 0)
			for i, b := range golden(t, version+".log") {
				r, err := Decode(b)
				if err != nil {
					t.Fatalf("round %d: %v", i+1, err)
				}
				if again := r.AppendTo(nil); !bytes.Equal(again, b) {
					t.Fatalf("round %d is %x, written again %x", i+1, b, again)
				}
				if _, err := s.Apply(r, uint64(i+1)); err != nil {
					t.Fatal(err)
				}
			}
			loaded, err := Load(bytes.NewReader(golden(t, version+".snapshot")[0]))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.Digest(), loaded.Digest()); diff != "" {
				t.Fatalf("the snapshot is not that of the log: %s", diff)
			}
		})
	}
}

// goldens are the versions whose files are kept.
var goldens = []string{"first", "addresses"}
