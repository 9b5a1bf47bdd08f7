package edge_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
)

// Memory and CPU time of idle connections, of a process that has nothing but them:
//
//	go test ./node/edge -run TestFootprint -v -footprint 18000
//	go test ./node/edge -run TestFootprint -v -footprint 9000 -over-tls -footprint-hold 1m
var (
	footprintOf      = flag.Int("footprint", 0, "idle connections whose memory is measured; 0: that test is left out")
	footprintHold    = flag.Duration("footprint-hold", 10*time.Second, "how long they are held to measure their CPU time")
	footprintServe   = flag.Bool("footprint-serve", false, "for the test itself: serve them")
	footprintRoom    = flag.Int("footprint-room", 0, "for the test itself: serve so many at most")
	footprintProfile = flag.String("footprint-profile", "", "a `directory` for heap.pprof and cpu.pprof of what serves them")
)

// serving is what the serving process says of itself.
type serving struct {
	Addr       string
	CPU        time.Duration // used so far
	Heap       uint64        // live and not yet collected
	Stacks     uint64
	Sys        uint64 // got from the system and not given back
	Sessions   int
	Goroutines int
	Pings      pingWaits          // since last asked, where a pinger was asked for
	Rejected   map[string]float64 // connections, by reason
}

// TestFootprintServer serves until its input ends. Each line it reads is a request;
// each is answered with a line of figures.
func TestFootprintServer(t *testing.T) {
	if !*footprintServe {
		t.Skip("serves TestFootprint, in a process of its own")
	}
	f := start(t, func(c *edge.Config) { c.Loops, c.MaxConnections = 0, *footprintRoom })
	out := json.NewEncoder(os.Stdout)
	beside := &pinger{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, file, _ := strings.Cut(lines.Text(), " ")
		if verb == "ping" {
			beside = startPinger(t, f)
		}
		if err := serveFootprint(verb, file); err != nil {
			t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if err := out.Encode(serving{
			Addr: f.addr, CPU: processTime(t), Heap: m.HeapAlloc, Stacks: m.StackInuse, Sys: m.Sys - m.HeapReleased,
			Sessions: int(f.metric("stockmesh_sessions")), Goroutines: runtime.NumGoroutine(),
			Pings: beside.figures(), Rejected: f.metrics("stockmesh_connections_rejected_total"),
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func serveFootprint(verb, file string) error {
	switch verb {
	case "collect":
		runtime.GC()
	case "heap":
		runtime.GC()
		w, err := os.Create(file)
		if err != nil {
			return err
		}
		defer w.Close()
		return pprof.Lookup("heap").WriteTo(w, 0)
	case "cpu":
		w, err := os.Create(file)
		if err != nil {
			return err
		}
		return pprof.StartCPUProfile(w)
	case "cpu-end":
		pprof.StopCPUProfile()
	}
	return nil
}

// server is a process that serves.
type server struct {
	testing.TB
	pid   int
	in    io.Writer
	lines *bufio.Scanner
}

// startServer starts one that has room for so many connections; 0: as many as it can.
func startServer(t testing.TB, room int) *server {
	t.Helper()
	args := []string{"-test.run=^TestFootprintServer$", "-footprint-serve", fmt.Sprintf("-over-tls=%v", *overTLS), fmt.Sprint("-footprint-room=", room)}
	if *footprintProfile != "" {
		args = append(args, "-test.memprofilerate=512")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("the serving process:", err)
		}
	})
	return &server{TB: t, pid: cmd.Process.Pid, in: in, lines: bufio.NewScanner(out)}
}

// ask sends a request and returns the figures after it.
func (s *server) ask(request string) (now serving) {
	s.Helper()
	if _, err := fmt.Fprintln(s.in, request); err != nil {
		s.Fatal(err)
	}
	if !s.lines.Scan() {
		s.Fatal("the serving process has ended")
	}
	if err := json.Unmarshal(s.lines.Bytes(), &now); err != nil {
		s.Fatalf("%v in %s", err, s.lines.Text())
	}
	return now
}

// resident waits until the process's memory has settled for a second.
func (s *server) resident() int64 {
	s.Helper()
	last, since := residentBytes(s, s.pid), time.Now()
	eventually(s, "memory settles", func() bool {
		now := residentBytes(s, s.pid)
		if max(now-last, last-now) > last/100 {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return residentBytes(s, s.pid)
}

func TestFootprint(t *testing.T) {
	if *footprintOf == 0 {
		t.Skip("asks for -footprint")
	}
	s := startServer(t, 0)
	began := s.ask("stats")
	idlers := newIdlers(t, began.Addr)
	idlers.dial(200) // what a process needs at all
	s.ask("collect")
	before := s.resident()
	begin := time.Now()
	idlers.dial(*footprintOf)
	took := time.Since(begin)
	after := s.resident()
	raw := s.ask("stats")
	collected := s.ask("collect")
	n := float64(*footprintOf)
	t.Logf("%d connections in %v (%.0f/s), sessions %d", *footprintOf, took.Round(time.Millisecond), n/took.Seconds(), raw.Sessions)
	t.Logf("RSS per connection: %.0f bytes; %.0f after a collection (before: %d, after: %d)",
		float64(after-before)/n, float64(s.resident()-before)/n, before, after)
	t.Logf("heap per connection: %.0f bytes live, %.0f with garbage; stacks %.0f", float64(collected.Heap)/n, float64(raw.Heap)/n, float64(raw.Stacks)/n)
	if *footprintProfile != "" {
		s.ask("heap " + *footprintProfile + "/heap.pprof")
		s.ask("cpu " + *footprintProfile + "/cpu.pprof")
	}
	from, begin := s.ask("stats"), time.Now()
	idlers.hold(*footprintHold)
	to := s.ask("stats")
	t.Logf("CPU time: %.3f us per second and connection, over %v, %d pings answered",
		float64((to.CPU-from.CPU).Microseconds())/time.Since(begin).Seconds()/n, *footprintHold, idlers.pings.Load())
	if *footprintProfile != "" {
		s.ask("cpu-end")
	}
	if to.Sessions != from.Sessions {
		t.Errorf("%d sessions of %d are left", to.Sessions, from.Sessions)
	}
}
