package peer

import (
	"context"
	"net"
	"strings"
	"testing"
)

// TestNoServerOutlivesAKilledKeeper kills the keeper, which can clean up nothing then.
func TestNoServerOutlivesAKilledKeeper(t *testing.T) {
	c := testConfig(t)
	addrs, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := c.makeDir("idle")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.launch("idle", dir, "", nil, c.Keeper[0], "listen", addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	listens := func(context.Context) error {
		nc, err := net.Dial("tcp", addrs[0])
		if err == nil {
			err = nc.Close()
		}
		return err
	}
	if err := p.await(t.Context(), listens); err != nil {
		t.Fatal(err)
	}
	if err := p.keeper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the keeper has ended: %v", err)
	}
	for listens(t.Context()) == nil { // until what was killed has gone
	}
}
