package peer

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// long has the tests take seconds for what takes a cluster of servers to come up.
var long = flag.Bool("long", false, "run the peers that take long to start")

// Children of the test binary, by first argument.
var testChildren = map[string]func([]string) error{"keep": Keep, "nats": ServeNATS, "listen": listen}

// listen is a server that does nothing, at an address.
func listen(args []string) error {
	l, err := net.Listen("tcp", args[0])
	for err == nil {
		_, err = l.Accept()
	}
	return err
}

// TestMain lets the test binary be started again as a child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if child, ok := testChildren[os.Args[1]]; ok {
			if err := child(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// testConfig keeps everything below one directory, which servers that run as somebody
// else can pass through.
func testConfig(t *testing.T) Config {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return Config{Dir: dir, Keeper: []string{binary, "keep"}, Server: []string{binary, "nats"}, Ports: freePorts}
}

// freePorts takes ports that the system gives to nobody's outgoing connection, as bench
// does.
func freePorts(n int) (addrs []string, err error) {
	for range 100 * n {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+rand.IntN(8000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if addrs = append(addrs, addr); len(addrs) == n {
			return addrs, nil
		}
	}
	return nil, errors.New("no free ports")
}

// TestPeersSell runs each server that is installed for a moment, and holds it to its
// answers.
func TestPeersSell(t *testing.T) {
	for _, k := range Kinds() {
		if k.Pushes {
			continue
		}
		k.counts, k.most = []int{1, 3}, 0
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for disks
			skipMissing(t, k)
			if slow := k.Name == NATSReplicated || k.Name == RedisReplica; slow && !*long {
				t.Skip("its servers take seconds to find each other: -long")
			}
			figures := measureShortly(t, k, Work{ID: "t", SKUs: 5, Opening: 1 << 40})
			if figures["acked_per_second"] <= 0 || figures["p99_ms"] <= 0 {
				t.Errorf("%v", figures)
			}
		})
		if !k.Orders {
			continue
		}
		t.Run(k.Name+" orders", func(t *testing.T) {
			t.Parallel()
			skipMissing(t, k)
			figures := measureShortly(t, k, Work{ID: "o", SKUs: 5, Lines: 3, Opening: 1 << 40})
			if figures["orders_per_second"] <= 0 || figures["reserve_p99_ms"] <= 0 {
				t.Errorf("%v", figures)
			}
		})
	}
}

func skipMissing(t *testing.T, k Kind) {
	t.Helper()
	if err := k.Find(Config{}); err != nil {
		t.Skip(err)
	}
}

func measureShortly(t *testing.T, k Kind, w Work) map[string]float64 {
	t.Helper()
	r, err := k.Measure(t.Context(), testConfig(t), w, 100*time.Millisecond, func(string, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Faults {
		t.Error(f)
	}
	return r.Figures
}
