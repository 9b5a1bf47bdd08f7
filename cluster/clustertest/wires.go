package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// wires gives each region a network namespace with two cables: one to the test's clients,
// one to a switch that all regions are plugged into.
type wires struct {
	t       testing.TB
	id      int // tells this mesh's names and addresses from those of others
	regions []string
}

// Ports of the nodes in their namespaces begin here.
const wiresPort = 20000

// CanSplit tells whether this process may make network namespaces, and else why not.
func CanSplit() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("network namespaces need iproute2: %w", err)
	}
	name := fmt.Sprintf("sm-try-%d", rand.IntN(1<<20))
	if err := ip("netns add " + name); err != nil {
		return err
	}
	return ip("netns del " + name)
}

// ip runs the command of that name.
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

func newWires(t testing.TB, regions []string) *wires {
	t.Helper()
	w := &wires{t: t, id: rand.IntN(250), regions: regions}
	t.Cleanup(w.remove)
	w.run("link add %s type bridge", w.clients())
	w.run("addr add %s dev %s", w.net("1"), w.clients())
	w.run("link set %s up", w.clients())
	w.run("link add %s type bridge", w.between())
	w.run("link set %s up", w.between())
	for i := range regions {
		w.run("netns add %s", w.space(i))
		w.run("-n %s link set lo up", w.space(i))
		w.cable(i, "c", w.clients(), w.net(strconv.Itoa(10+i)))
		w.cable(i, "w", w.between(), w.net(strconv.Itoa(138+i)))
	}
	return w
}

// cable plugs a region's namespace into a bridge.
func (w *wires) cable(i int, kind, bridge, addr string) {
	w.t.Helper()
	w.run("link add %s type veth peer name %s netns %s", w.plugOf(i, kind), kind+"0", w.space(i))
	w.run("-n %s addr add %s dev %s", w.space(i), addr, kind+"0")
	w.run("-n %s link set %s up", w.space(i), kind+"0")
	w.run("link set %s master %s up", w.plugOf(i, kind), bridge)
}

func (w *wires) run(format string, args ...any) {
	w.t.Helper()
	if err := ip(fmt.Sprintf(format, args...)); err != nil {
		w.t.Fatal(err)
	}
}

// Names of interfaces have at most 15 bytes.
func (w *wires) clients() string                  { return fmt.Sprintf("smc%d", w.id) }
func (w *wires) between() string                  { return fmt.Sprintf("smw%d", w.id) }
func (w *wires) space(i int) string               { return fmt.Sprintf("sm%d-%d", w.id, i) }
func (w *wires) plugOf(i int, kind string) string { return fmt.Sprintf("sm%d%s%d", w.id, kind, i) }

// net is an address with the size of its network: below 128 the clients', above it that
// between the regions.
func (w *wires) net(host string) string { return fmt.Sprintf("10.213.%d.%s/25", w.id, host) }

// address is the j-th of a region's addresses: what regions say to each other has a cable
// of its own.
func (w *wires) address(region, j int) string {
	host := 10 + region
	if kind := j % portsEach; kind == portWAN || kind == portLink {
		host = 138 + region
	}
	return net.JoinHostPort(fmt.Sprintf("10.213.%d.%d", w.id, host), strconv.Itoa(wiresPort+j))
}

// enter is the command that runs another one in the region's namespace.
func (w *wires) enter(region string) []string {
	w.t.Helper()
	return []string{"ip", "netns", "exec", w.space(w.index(region))}
}

func (w *wires) index(region string) int {
	w.t.Helper()
	for i, name := range w.regions {
		if name == region {
			return i
		}
	}
	w.t.Fatalf("no region %q", region)
	return 0
}

// unplug takes a region off the network between the regions. Neither side is told.
func (w *wires) unplug(region string) {
	w.t.Helper()
	w.run("link set %s nomaster", w.plugOf(w.index(region), "w"))
}

// plug plugs all regions in.
func (w *wires) plug() {
	w.t.Helper()
	for i := range w.regions {
		w.run("link set %s master %s", w.plugOf(i, "w"), w.between())
	}
}

func (w *wires) remove() {
	// What was not made can't be removed.
	for i := range w.regions {
		_ = ip("netns del " + w.space(i)) // its cables go with it
	}
	_ = ip("link del " + w.clients())
	_ = ip("link del " + w.between())
}
