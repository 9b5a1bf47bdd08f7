package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// startEcho returns the address of a server that says everything again.
func startEcho(t *testing.T) string {
	return startServer(t, func(rw io.ReadWriter) { _, _ = io.Copy(rw, rw) })
}

// startServer returns the address of a server that serves each connection so.
func startServer(t *testing.T, serve func(io.ReadWriter)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				serve(nc)
			}()
		}
	}()
	return l.Addr().String()
}

// lines is a connection that says a line and hears it again.
type lines struct {
	net.Conn
	*bufio.Reader
}

func openLines(t *testing.T, addr string) *lines {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &lines{nc, bufio.NewReader(nc)}
}

const (
	aLongWhile  = time.Minute
	aShortWhile = 100 * time.Millisecond // for what must not come
)

func (l *lines) echo(patience time.Duration) error {
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(l.Conn, "hello\n"); err != nil {
		return err
	}
	said, err := l.ReadString('\n')
	if err == nil && said != "hello\n" {
		return errors.New("heard " + said)
	}
	return err
}

func TestWires(t *testing.T) {
	w := newWires()
	defer w.close()
	target := startEcho(t)
	var conns []*lines
	for _, ends := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
		addr, err := w.lead(ends[0], ends[1], target)
		if err != nil {
			t.Fatal(err)
		}
		l := openLines(t, addr)
		if err := l.echo(aLongWhile); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, l)
	}
	if hit := w.sever(2); hit != 2 {
		t.Errorf("the cut hits %d connections", hit)
	}
	if err := conns[0].echo(aLongWhile); err != nil {
		t.Errorf("regions that are not cut off: %v", err)
	}
	fresh := openLines(t, conns[1].RemoteAddr().String())
	for i, l := range []*lines{conns[1], conns[2], fresh} {
		if err := l.echo(aShortWhile); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("through a cut, connection %d: %v", i+1, err)
		}
	}
	await(t, "the wires know all connections", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.joints) == 4
	})
	w.mend()
	for i, l := range []*lines{conns[1], conns[2], fresh} {
		if err := l.echo(aLongWhile); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d, which has holes, goes on: %v", i+1, err)
		}
	}
	for _, l := range []*lines{conns[0], openLines(t, conns[1].RemoteAddr().String())} {
		if err := l.echo(aLongWhile); err != nil {
			t.Errorf("after mending: %v", err)
		}
	}
}

func TestWiresOfADeadNode(t *testing.T) {
	w := newWires()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there
	addr, err := w.lead(0, 1, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := openLines(t, addr).echo(aLongWhile); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	w.close()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a closed wire takes connections")
	}
}

// flag returns the value of a node's flag.
func (n *node) flag(name string) string {
	for i, arg := range n.args {
		if arg == name {
			return n.args[i+1]
		}
	}
	return ""
}

func TestPlanOfAMesh(t *testing.T) {
	w := newWires()
	defer w.close()
	nodes, err := plan(t.TempDir(), 3, 3, w)
	if err != nil || len(nodes) != 9 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
	addrs := make(map[string]bool)
	for i, n := range nodes {
		region := regionNames[i/3]
		if n.flag("--region") != region || !strings.HasPrefix(n.name, region+"-") || n.flag("--expect") != "3" {
			t.Errorf("node %d: %v", i, n.args)
		}
		for _, flag := range []string{"--listen", "--gossip", "--cluster-listen", "--wan-gossip", "--link-listen"} {
			addr := n.flag(flag)
			if addrs[addr] {
				t.Errorf("%s has %s %s, which is taken", n.name, flag, addr)
			}
			addrs[addr] = true
		}
		told := n.flag("--advertise-link")
		for _, other := range regionNames[:3] {
			if strings.Contains(","+told, ","+other+"=127.0.0.1:") == (other == region) {
				t.Errorf("%s tells %s", n.name, told)
			}
		}
		if seeds := strings.Split(n.flag("--join-region"), ","); len(seeds) != 2 {
			t.Errorf("%s joins %v", n.name, seeds)
		}
		if _, err := nodeConfig(n.args[2:]); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	}
}

func TestPlanOfARegionKnowsNoMesh(t *testing.T) {
	for _, each := range []int{1, 3} {
		nodes, err := plan(t.TempDir(), 1, each, nil)
		if err != nil || len(nodes) != each {
			t.Fatalf("%d nodes, %v", len(nodes), err)
		}
		for _, n := range nodes {
			if all := strings.Join(n.args, " "); strings.Contains(all, "link") || strings.Contains(all, "wan") {
				t.Errorf("%s: %s", n.name, all)
			}
		}
	}
}
