package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/node/server"
)

// childFlag makes the test binary a node: a real process, to be killed.
const childFlag = "STOCKMESH_TEST_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(childFlag) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child() error {
	c := server.Default()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := server.New(c)
	if err != nil {
		return err
	}
	go func() {
		<-s.Ready()
		fmt.Printf("%s %s\n", s.Addr(), s.AdminAddr())
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}

// process is a node in a process of its own.
type process struct {
	cmd           *exec.Cmd
	public, admin string // base URLs
	stderr        *bytes.Buffer
	exited        chan error
}

func startNode(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), stderr: &bytes.Buffer{}, exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childFlag+"=1")
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var public, admin string
	_, scanErr := fmt.Fscan(bufio.NewReader(out), &public, &admin)
	go func() { p.exited <- p.cmd.Wait() }()
	if scanErr != nil {
		t.Fatalf("node did not start: %v\n%s", <-p.exited, p.stderr)
	}
	p.public, p.admin = "http://"+public, "http://"+admin
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// stop signals the node and returns how it ended.
func (p *process) stop(t *testing.T, sig os.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("node does not stop")
		return nil
	}
}

func post(url, key, body string) (int, map[string]any, error) {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Idempotency-Key", key)
	return answer(http.DefaultClient.Do(req))
}

func fetch(url string) (int, map[string]any, error) { return answer(http.Get(url)) }

func answer(res *http.Response, err error) (int, map[string]any, error) {
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, err
	}
	var v map[string]any
	return res.StatusCode, v, json.Unmarshal(b, &v)
}

var anyPort = []string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}

// TestKill: acknowledged means there, after kill -9 at any moment; and a retry of
// what got no answer takes effect once.
func TestKill(t *testing.T) {
	args := append([]string{"--data", t.TempDir()}, anyPort...)
	p := startNode(t, args...)
	if status, v, err := post(p.public+"/v1/counts", "open", `{"sku":"A","on_hand":1000000}`); err != nil || status != 200 {
		t.Fatalf("%d %v %v", status, v, err)
	}
	const callers, kills = 8, 4
	next := make([]int, callers) // the sale that each caller has yet to see acknowledged
	for range kills {
		var wg sync.WaitGroup
		under := make(chan struct{}, callers)
		for i := range callers {
			wg.Go(func() {
				for n := 0; ; n++ {
					status, _, err := post(p.public+"/v1/sales", fmt.Sprintf("%d-%d", i, next[i]), `{"lines":[{"sku":"A","quantity":1}]}`)
					if err != nil || status != 200 {
						return
					}
					next[i]++
					if n == 20 {
						under <- struct{}{}
					}
				}
			})
		}
		for range callers {
			<-under
		}
		if err := p.stop(t, syscall.SIGKILL); err == nil {
			t.Fatal("killed without a trace")
		}
		wg.Wait()
		p = startNode(t, args...)
	}
	acked := 0
	for i := range callers {
		// The last one may have been committed before the kill, or not.
		if status, v, err := post(p.public+"/v1/sales", fmt.Sprintf("%d-%d", i, next[i]), `{"lines":[{"sku":"A","quantity":1}]}`); err != nil || status != 200 {
			t.Fatalf("%d %v %v", status, v, err)
		}
		acked += next[i] + 1
	}
	_, v, err := fetch(p.public + "/v1/stock/A")
	if err != nil {
		t.Fatal(err)
	}
	if got := v["item"].(map[string]any)["on_hand"]; got != float64(1000000-acked) {
		t.Fatalf("on hand %v after %d acknowledged sales", got, acked)
	}
}

// TestSignalStopsInOrder: exit 0, quickly, with nothing lost and the port free.
func TestSignalStopsInOrder(t *testing.T) {
	args := append([]string{"--data", t.TempDir()}, anyPort...)
	for round, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p := startNode(t, args...)
		if status, v, err := post(p.public+"/v1/adjustments", fmt.Sprint(round), `{"sku":"A","delta":1}`); err != nil || status != 200 {
			t.Fatalf("%d %v %v", status, v, err)
		}
		if status, v, err := fetch(p.admin + "/readyz"); err != nil || status != 200 || v["status"] != "ready" {
			t.Fatalf("%d %v %v", status, v, err)
		}
		start := time.Now()
		if err := p.stop(t, sig); err != nil {
			t.Fatalf("%v\n%s", err, p.stderr)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("stopping took %v", took)
		}
	}
	p := startNode(t, args...)
	_, v, err := fetch(p.public + "/v1/stock/A")
	if err != nil || v["item"].(map[string]any)["on_hand"] != float64(2) {
		t.Fatalf("%v %v", v, err)
	}
}

func TestStartFailsClearly(t *testing.T) {
	dir := t.TempDir()
	startNode(t, append([]string{"--data", dir}, anyPort...)...)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"directory in use": {append([]string{"--data", dir}, anyPort...), "in use by another process"},
		"beyond loopback":  {[]string{"--data", t.TempDir(), "--listen", "0.0.0.0:0"}, "--insecure"},
		"not an address":   {[]string{"--data", t.TempDir(), "--listen", "here"}, "want host:port"},
		"bad region":       {[]string{"--data", t.TempDir(), "--region", "EU"}, "--region must be"},
		"too many nodes":   {[]string{"--data", t.TempDir(), "--expect", "3"}, "--expect 3"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], c.args...)
			cmd.Env = append(os.Environ(), childFlag+"=1")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Fatalf("got %v\n%s", err, out)
			}
		})
	}
}
