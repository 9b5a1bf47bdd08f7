package bus

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(appenderDir); dir != "" {
		appendForEver(dir)
	}
	if config := os.Getenv(memberConfig); config != "" {
		serveForEver(config)
	}
	// See Bus.route for the first; the second waits up to 30 s for an answer to a
	// mirror's request, whether its server has been shut down or not.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).StartRouting"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*stream).setupMirrorConsumer.func3"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*stream).tryDeleteSourcingConsumer.func1"))
}

// openAt opens a Bus on dir; the test closes it.
func openAt(t testing.TB, dir string, change ...func(*Config)) *Bus {
	t.Helper()
	c := Config{Dir: dir, Name: "test"}
	for _, f := range change {
		f(&c)
	}
	b, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openBus opens a Bus on a new directory and closes it when the test ends.
func openBus(t testing.TB, change ...func(*Config)) *Bus {
	t.Helper()
	b := openAt(t, t.TempDir(), change...)
	t.Cleanup(func() { closeBus(t, b) })
	return b
}

func closeBus(t testing.TB, b *Bus) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// dataDir is TempDir for a server of several: the engine may still be deleting a
// replica's files for a moment after it was shut down.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") //nolint:usetesting // its removal doesn't wait
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(t, "the data is removed", func() bool { return os.RemoveAll(dir) == nil }) })
	return dir
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"no dir":         {Name: "x"},
		"no name":        {Dir: "x"},
		"negative wait":  {Dir: "x", Name: "x", AnswerWait: -1},
		"negative limit": {Dir: "x", Name: "x", StoreBytesMax: -1},
	} {
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpenFailsOnUnusableDir(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: file, Name: "x"}); err == nil {
		t.Fatal("opened a file as a data directory")
	}
}

func TestOpenHonoursContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, Config{Dir: t.TempDir(), Name: "x"})
	wantErr(t, err, context.Canceled)
}

func TestOpenFailsWhenAStreamIsNotRecovered(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	must[*Log](t)(b.Log(t.Context(), "l", true))
	closeBus(t, b)

	meta := dir + "/jetstream/$G/streams/LOG_l/meta.inf"
	if err := os.WriteFile(meta, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Open(t.Context(), Config{Dir: dir, Name: "test"}); err == nil {
		closeBus(t, b)
		t.Fatal("opened without its stream")
	}
}

func TestTwoBusesInOneProcess(t *testing.T) {
	a, b := openBus(t), openBus(t)
	la := must[*Log](t)(a.Log(t.Context(), "l", true))
	_, err := b.Log(t.Context(), "l", false)
	wantErr(t, err, ErrMissing)
	lb := must[*Log](t)(b.Log(t.Context(), "l", true))
	must[uint64](t)(la.Append(t.Context(), []byte("a"), 0))
	must[uint64](t)(lb.Append(t.Context(), []byte("b"), 0))
	if got := must[[]byte](t)(la.Get(t.Context(), 1)); string(got) != "a" {
		t.Fatalf("got %q", got)
	}
}

func TestNothingListens(t *testing.T) {
	b := openBus(t)
	for name, addr := range map[string]net.Addr{
		"client": b.srv.Addr(), "monitor": asAddr(b.srv.MonitorAddr()), "cluster": asAddr(b.srv.ClusterAddr()),
	} {
		if addr != nil {
			t.Errorf("%s listens on %v", name, addr)
		}
	}
}

func asAddr(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

func TestCloseIsIdempotent(t *testing.T) {
	b := openAt(t, t.TempDir())
	l := must[*Log](t)(b.Log(t.Context(), "l", true))
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { closeBus(t, b) })
	}
	wg.Wait()
	wantErr(t, b.Err(), ErrClosed)
	_, err := l.Append(t.Context(), nil, 0)
	wantErr(t, err, ErrClosed)
	_, err = l.Get(t.Context(), 1)
	wantErr(t, err, ErrClosed)
	_, _, err = l.Bounds(t.Context())
	wantErr(t, err, ErrClosed)
}

func TestErrTellsOfADisabledEngine(t *testing.T) {
	b := openBus(t)
	l := must[*Log](t)(b.Log(t.Context(), "l", true))
	if err := b.srv.ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if err := b.Err(); err == nil {
		t.Fatal("no error")
	}
	if _, err := l.Append(t.Context(), []byte("x"), 0); err == nil {
		t.Fatal("appended")
	}
}

func TestErrTellsOfALostConnection(t *testing.T) {
	b := openBus(t)
	b.commit.nc.Close()
	if err := b.Err(); err == nil {
		t.Fatal("no error")
	}
}

func TestUsedGrows(t *testing.T) {
	b := openBus(t)
	l := must[*Log](t)(b.Log(t.Context(), "l", true))
	must[uint64](t)(l.Append(t.Context(), make([]byte, 1000), 0))
	if used := b.Used(); used < 1000 || used > 2000 {
		t.Fatalf("used %d", used)
	}
}

func TestServerLinesReachTheLogger(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	})
	b := openAt(t, t.TempDir(), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	closeBus(t, b)
	if s := out.String(); !strings.Contains(s, "part=nats") || strings.Contains(s, "level=INFO") {
		t.Fatalf("log:\n%s", s)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestNames(t *testing.T) {
	b := openBus(t)
	for _, name := range []string{"", "a.b", "a b", "*", ">", "ü"} {
		_, err := b.Log(t.Context(), name, true)
		wantErr(t, err, ErrName)
		_, err = b.Table(t.Context(), name, true)
		wantErr(t, err, ErrName)
		_, err = b.Archive(t.Context(), name, true)
		wantErr(t, err, ErrName)
	}
}

func TestMissingStreamsAreNotCreated(t *testing.T) {
	b := openBus(t)
	_, err := b.Log(t.Context(), "x", false)
	wantErr(t, err, ErrMissing)
	_, err = b.Table(t.Context(), "x", false)
	wantErr(t, err, ErrMissing)
	_, err = b.Archive(t.Context(), "x", false)
	wantErr(t, err, ErrMissing)
}
