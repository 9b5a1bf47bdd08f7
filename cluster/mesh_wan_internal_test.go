package cluster

import (
	"context"
	"log/slog"
	"testing"
)

// A node comes back while its own name can't be looked up, under the address it had.
func TestOwnNameOutlivesItsNameServer(t *testing.T) {
	want := identity{Format: dirFormat, Mode: modeStandalone, Region: "eu", Node: "eu-1", Shards: 1}
	dir := t.TempDir()
	start := func(ctx context.Context, told string) string {
		d, err := openDir(dir, want)
		if err != nil {
			t.Fatal(err)
		}
		defer d.lock.Close()
		m := &mesh{
			config: &Config{Mesh: &Mesh{AdvertiseWAN: told}}, c: &Cluster{dir: d}, logger: slog.New(slog.DiscardHandler),
		}
		return m.ownWAN(ctx)
	}
	noNames, cancel := context.WithCancel(t.Context())
	cancel()

	const name = "localhost:7947"
	if got := start(noNames, name); got != name {
		t.Fatalf("never looked up: got %q, want the name, which is refused later on", got)
	}
	addr := start(t.Context(), name)
	if addr != "127.0.0.1:7947" && addr != "[::1]:7947" {
		t.Fatalf("got %q", addr)
	}
	if got := start(noNames, name); got != addr {
		t.Errorf("without names: got %q, want %q as before", got, addr)
	}
	if got := start(noNames, "elsewhere.invalid:7947"); got != "elsewhere.invalid:7947" {
		t.Errorf("another name: got %q", got)
	}
	if got := start(t.Context(), ""); got != "" {
		t.Errorf("none: got %q", got)
	}
}
