package bus

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A stream whose description was torn by a power cut.
func TestUnrecoveredStreams(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	newLog(t, b)
	folder := filepath.Join(b.srv.JetStreamConfig().StoreDir, "$G", "streams")
	closeBus(t, b)
	names, err := os.ReadDir(folder)
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	tear := func() {
		t.Helper()
		if err := os.Truncate(filepath.Join(folder, names[0].Name(), "meta.sum"), 0); err != nil {
			t.Fatal(err)
		}
	}
	tear()
	var e *unrecoveredError
	if _, err := Open(t.Context(), Config{Dir: dir, Name: "test"}); !errors.As(err, &e) || len(e.streams) != 1 || e.streams[0] != names[0].Name() {
		t.Fatalf("got %v", err)
	}
	b = openAt(t, dir, func(c *Config) { c.Fresh = true })
	newLog(t, b) // as if it had never been
	closeBus(t, b)
	closeBus(t, openAt(t, dir))
}

func TestMirrorsMayBeForgotten(t *testing.T) {
	mesh := &Mesh{Buckets: []string{"stock", "revoked"}}
	for stream, want := range map[string]bool{
		"KV_stock_us": true, "KV_revoked_asia-2": true, mirrorStream("us", "stock"): true,
		"KV_stock": false, "KV_stocks_us": false, "LOG_0": false, "OBJ_snapshots": false, "KV_revoked": false,
	} {
		if got := mesh.mirrors(stream); got != want {
			t.Errorf("%s: %v", stream, got)
		}
	}
	if (*Mesh)(nil).mirrors("KV_stock_us") {
		t.Error("a mirror without a mesh")
	}
}

// A power cut may keep the file with which the engine tries whether it may write.
func TestProbesOfAStartAreSwept(t *testing.T) {
	dir := t.TempDir()
	closeBus(t, openAt(t, dir))
	probe := filepath.Join(dir, "jetstream", "_test_123")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closeBus(t, openAt(t, dir))
	if _, err := os.Stat(probe); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
