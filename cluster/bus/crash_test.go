package bus

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAbruptShutdownLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	l := newLog(t, b)
	acked := make(chan uint64)
	go func() {
		defer close(acked)
		for last := uint64(0); ; {
			seq, err := l.Append(t.Context(), body(last+1), last)
			if err != nil {
				return
			}
			last = seq
			acked <- seq
		}
	}()
	var last uint64
	for seq := range acked {
		if last = seq; seq == 100 {
			go b.srv.Shutdown() // no drain: under the feet of the appender
			break
		}
	}
	go func() { b.srv.WaitForShutdown(); b.commit.nc.Close() }()
	for last = range acked {
	}
	_ = b.Close()

	checkReopened(t, dir, max(last, 100))
}

const appenderDir = "BUS_TEST_APPENDER_DIR"

// appendForEver is the life of the process TestKilledProcess... starts and kills.
func appendForEver(dir string) {
	ctx := context.Background()
	b, err := Open(ctx, Config{Dir: dir, Name: "test"})
	if err != nil {
		panic(err)
	}
	l, err := b.Log(ctx, "l", true)
	if err != nil {
		panic(err)
	}
	for last := uint64(0); ; last++ {
		if _, err := l.Append(ctx, body(last+1), last); err != nil {
			panic(err)
		}
		fmt.Println(last + 1)
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), appenderDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		seq, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			break // a line cut by the kill
		}
		if last = seq; last == 200 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	checkReopened(t, dir, max(last, 200))
}

// checkReopened opens what a crash left and finds all messages up to acked.
func checkReopened(t *testing.T, dir string, acked uint64) {
	t.Helper()
	b := openAt(t, dir)
	defer closeBus(t, b)
	l := must[*Log](t)(b.Log(t.Context(), "l", false))
	_, last, err := l.Bounds(t.Context())
	if err != nil || last < acked {
		t.Fatalf("acknowledged %d, found %d (%v)", acked, last, err)
	}
	got, err := readAll(t, l, 1, last)
	if diff := cmp.Diff(span(1, last), got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	must[uint64](t)(l.Append(t.Context(), nil, last))
}
