package bus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

const memberConfig = "BUS_TEST_MEMBER_CONFIG"

// childConfig is what a process of its own needs to know.
type childConfig struct {
	Dir, Name, Region, Listen string
	Routes                    []string
}

// serveForEver is the life of the process which the tests below kill or stop.
func serveForEver(config string) {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	b, err := Open(context.Background(), Config{Dir: c.Dir, Name: c.Name, Region: &Region{
		Name: c.Region, Listen: c.Listen, Routes: c.Routes, Replicas: 3,
	}})
	if err != nil {
		panic(err)
	}
	if err := b.AwaitQuorum(context.Background()); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("open\n")
	select {}
}

// mixedRegion is a region of three: two in this process, and one in its own, which
// leads the log the others have open.
func mixedRegion(t *testing.T) (logs []*Log, child *exec.Cmd) {
	t.Helper()
	addrs := loopback.Addresses(t, 3)
	r := &region{t: t, change: func(*Config) {}}
	t.Cleanup(r.close)
	for i, name := range []string{"n0", "n1", "child"} {
		r.servers = append(r.servers, r.member(name, addrs[i], others(addrs, addrs[i])))
	}
	c := r.servers[2].config
	config := must[[]byte](t)(json.Marshal(childConfig{c.Dir, c.Name, c.Region.Name, c.Region.Listen, c.Region.Routes}))
	r.servers = r.servers[:2]

	child = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), memberConfig+"="+string(config))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = child.Process.Kill(), child.Wait() })
	r.openAll()
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the child did not open")
	}
	logs = r.logs("l")
	leader, _ := leadingOrRemote(t, logs)
	if leader != nil {
		handTo(t, leader, "child")
	}
	return logs, child
}

// leadingOrRemote returns the local leader, nil when another process leads.
func leadingOrRemote(t *testing.T, logs []*Log) (leader *Log, name string) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		var err error
		name, err = logs[0].Leader(t.Context())
		return err == nil
	})
	for _, l := range logs {
		if l.bus.srv.Name() == name {
			return l, name
		}
	}
	return nil, name
}

func handTo(t *testing.T, l *Log, name string) {
	t.Helper()
	eventually(t, name+" leads", func() bool {
		if err := l.StepDown(t.Context(), name); err != nil && !errors.Is(err, ErrNoLeader) {
			t.Fatal(err)
		}
		_, now := leadingOrRemote(t, []*Log{l})
		return now == name
	})
}

// The behavioural check of the timers: with the engine's own this takes 4 to 9 s.
func TestSilentLeaderIsReplaced(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			logs, child := mixedRegion(t)
			var acked uint64
			for acked < 50 {
				acked = appendNext(t, logs[0], acked)
			}
			start := time.Now()
			if err := child.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			leader, _ := leading(t, logs)
			t.Log("to a new leader:", time.Since(start))
			last := appendNext(t, leader, acked)
			if took := time.Since(start); took > 3*time.Second*slow {
				t.Errorf("took %v", took)
			}
			t.Log("to an append:", time.Since(start))
			for _, l := range logs { // also where the consumer may land on the silent one
				start := time.Now()
				got, err := readAll(t, l, 1, last)
				if diff := cmp.Diff(span(1, last), got); err != nil || diff != "" {
					t.Fatal(err, diff)
				}
				t.Log("read after:", time.Since(start))
			}
		})
	}
}

// whenLed repeats do as long as it says that nothing was done for want of a leader.
func whenLed(t *testing.T, do func() error) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		err := do()
		if err != nil && !errors.Is(err, ErrNoLeader) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestTablesAndArchivesInARegion(t *testing.T) {
	r := newRegion(t, 3)
	var tables []*Table
	var archives []*Archive
	for _, b := range r.buses() {
		tables = append(tables, must[*Table](t)(b.Table(t.Context(), "stock", true)))
		archives = append(archives, must[*Archive](t)(b.Archive(t.Context(), "snap", true)))
	}
	rows := rowsNamed(2*batchRows+1, "1")
	whenLed(t, func() error { // the first write may find the stream without a leader yet
		results, err := tables[0].Put(t.Context(), rows[:1])
		rows[0].Revision = results[0].Revision
		return err
	})
	for i, res := range must[[]Result](t)(tables[0].Put(t.Context(), rows[1:])) {
		rows[i+1].Revision = res.Revision
	}
	whenLed(t, func() error {
		return archives[0].Put(t.Context(), "x", func(io.Writer) error { return nil })
	})
	for round := range 5 { // what one has written all others read at once
		data := noise(3*chunkBytes + round)
		putObject(t, archives[round%3], "x", data)
		for i, table := range tables {
			if diff := cmp.Diff(rows, rowsOf(t, table)); diff != "" {
				t.Fatal(diff)
			}
			if got := readObject(t, archives[i], "x"); len(got) != len(data) {
				t.Fatalf("%d bytes, want %d", len(got), len(data))
			}
			wantNames(t, archives[i], "x")
		}
	}
	for name, h := range must[map[string]StreamHealth](t)(r.buses()[0].Replicas(t.Context())) {
		if h.Replicas != 3 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}
