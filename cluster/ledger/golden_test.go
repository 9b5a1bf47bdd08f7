package ledger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
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

// goldens are the versions whose files are kept. In "addresses" records have a second
// byte of flags in the first format; since then they raise it.
var goldens = []string{"first", "addresses", "formats"}

// What an earlier version can read has the format that it knows; what it can't has not.
func TestFormatIsTheFirstThatWillDo(t *testing.T) {
	formats := make(map[byte]int)
	for _, b := range seedDesk(t).log {
		r, err := Decode(b)
		must(t, err)
		want := byte(roundFormat)
		for i := range r.Records {
			if r.Records[i].Address != "" {
				want = roundFormat2
			}
		}
		if b[0] != want {
			t.Errorf("a round of format %d, want %d: %x", b[0], want, b)
		}
		formats[want]++
		if b[0] = roundFormat2; want == roundFormat {
			if _, err := Decode(b); err == nil {
				t.Error("read in a later format than it needs")
			}
		}
		b[0] = roundFormat2 + 1
		if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), "round of format 3, this version reads 1 and 2: a later version of stockmesh wrote it") {
			t.Errorf("a later format: %v", err)
		}
	}
	if formats[roundFormat] == 0 || formats[roundFormat2] == 0 {
		t.Errorf("rounds by format: %v", formats)
	}
}
