package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/node/server"
	"go.uber.org/goleak"
)

// kills is how often the node is killed during the replay: a few in every run, 20
// for the proof (go test ./protocol/stockctl -run Kill -kills 20 -v).
var kills = flag.Int("kills", 3, "kill -9 of the node during the replay of real sales")

// childFlag makes the test binary a node: a real process, to be killed.
const childFlag = "STOCKMESH_TEST_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(childFlag) != "" {
		if err := runChild(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func runChild(dir, listen string) error {
	c := server.Default()
	c.Data, c.Listen, c.Admin = dir, listen, "127.0.0.1:0"
	s, err := server.New(c)
	if err != nil {
		return err
	}
	go func() {
		<-s.Ready()
		fmt.Println("ready")
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}

// victim is a node that is killed and started again on its data and its port.
type victim struct {
	dir, listen string
	cmd         *exec.Cmd
}

func (v *victim) start() error {
	var stderr bytes.Buffer
	v.cmd = exec.Command(os.Args[0], v.dir, v.listen)
	v.cmd.Env = append(os.Environ(), childFlag+"=1")
	v.cmd.Stderr = &stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.cmd.Start(); err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("the node did not start: %v, %v\n%s", err, v.cmd.Wait(), stderr.String())
	}
	return nil
}

func (v *victim) kill() error {
	if err := v.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = v.cmd.Wait() // tells that it was killed
	return nil
}

// killer kills the node at random moments, the given number of times.
type killer struct {
	mu     sync.Mutex
	node   *victim
	left   int
	killed int
	err    error
}

func (k *killer) run(ctx context.Context) {
	for {
		k.mu.Lock()
		left := k.left
		k.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(50+rand.IntN(400)) * time.Millisecond):
		}
		err := k.node.kill()
		if err == nil {
			err = k.node.start()
		}
		k.mu.Lock()
		k.left--
		k.killed++
		if err != nil {
			k.err, k.left = err, 0
		}
		k.mu.Unlock()
	}
}

// TestReplayOverKills: the node is killed at random moments while a month of real
// sales runs through it, and everything still adds up.
func TestReplayOverKills(t *testing.T) {
	node := &victim{dir: t.TempDir(), listen: loopback.Addresses(t, 1)[0]}
	if err := node.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.kill(); err != nil {
			t.Error(err)
		}
	}()
	// Paced so that the sales last for all the kills.
	rate := fmt.Sprint(2000 / (0.6 * float64(*kills)))
	k := &killer{node: node, left: *kills}
	var killing sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	begin := &onFirst{do: func() { killing.Go(func() { k.run(ctx) }) }}
	var out bytes.Buffer
	err := run(t.Context(), []string{
		"--endpoint", "http://" + node.listen, "--json", "replay", "testdata/online-retail-2011-11-21.csv.gz",
		"--run", "kills", "--clients", "32", "--rate", rate,
	}, io.MultiWriter(&out, begin), begin)
	cancel()
	killing.Wait()
	if err != nil {
		t.Fatalf("after %d kills: %v\n%s", k.killed, err, out.String())
	}
	if k.err != nil || k.killed == 0 {
		t.Fatalf("%d kills: %v", k.killed, k.err)
	}
	var sum map[string]any
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Logf("%d kills: %s", k.killed, strings.TrimSpace(out.String()))
}

// onFirst calls do when the first line is written: the replay has begun.
type onFirst struct {
	once sync.Once
	do   func()
}

func (w *onFirst) Write(b []byte) (int, error) {
	w.once.Do(w.do)
	return len(b), nil
}
