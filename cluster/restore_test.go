package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

// backUp takes a backup while sales go on, as an operator would.
func backUp(t *testing.T, n *cluster.Cluster) []byte {
	t.Helper()
	stop := make(chan struct{})
	var selling sync.WaitGroup
	selling.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				do(n, count(fmt.Sprint("busy", i), "busy", int64(i)))
			}
		}
	})
	var file bytes.Buffer
	err := n.Backup(t.Context(), &file)
	close(stop)
	selling.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// without drops the item that changed during the backup.
func without(items []protocol.Item, sku string) (rest []protocol.Item) {
	for _, it := range items {
		if it.SKU != sku {
			rest = append(rest, it)
		}
	}
	return rest
}

func restoreInto(t *testing.T, file []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "restore.stockmesh"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBackupAndRestore(t *testing.T) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) { testBackupAndRestore(t, shards) })
	}
}

func testBackupAndRestore(t *testing.T, shards int) {
	c := config(t.TempDir())
	c.Shards = shards
	n := open(t, c)
	for i := range 50 {
		must(t, n, count(fmt.Sprint("k", i), fmt.Sprint("SKU ", i), int64(i+10)))
	}
	sold := must(t, n, sell("sold", "SKU 7", 3))
	held := must(t, n, protocol.Command{Op: protocol.OpReserve, Key: "held", Lines: []protocol.Line{{SKU: "SKU 8", Quantity: 2}}})
	before := everything(n)
	file := backUp(t, n)
	shut(t, n)

	c.Dir, c.Node = restoreInto(t, file), "eu-2"
	n = open(t, c)
	if diff := cmp.Diff(before, without(everything(n), "busy")); diff != "" {
		t.Fatal(diff)
	}
	if err := refused(t, n, sell("new", "SKU 9", 1), protocol.CodeUnavailable); !err.Retryable || !strings.Contains(err.Message, "read-only") {
		t.Fatalf("got %v", err)
	}
	shut(t, n)
	n = open(t, c) // it stays read-only until somebody says so
	refused(t, n, sell("new", "SKU 9", 1), protocol.CodeUnavailable)
	if err := n.Activate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Activate(t.Context()); !errors.Is(err, cluster.ErrNotReadOnly) {
		t.Fatalf("got %v", err)
	}
	must(t, n, sell("new", "SKU 9", 1))
	if again := must(t, n, sell("sold", "SKU 7", 3)); !again.Replayed || cmp.Diff(sold.Result, again.Result) != "" {
		t.Fatalf("got %+v", again.Result)
	}
	must(t, n, protocol.Command{Op: protocol.OpConfirm, Key: "c", Reservation: held.Result.Reservation.ID})
	if _, err := os.Stat(filepath.Join(c.Dir, "restore.stockmesh")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the backup is still there")
	}
	after := everything(n)
	shut(t, n)
	n = open(t, c)
	if diff := cmp.Diff(after, everything(n)); diff != "" {
		t.Fatal(diff)
	}
}

func TestDamagedBackupIsRefused(t *testing.T) {
	n := open(t, config(t.TempDir()))
	must(t, n, count("k", "A", 10))
	var file bytes.Buffer
	if err := n.Backup(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	for name, damage := range map[string]func([]byte) []byte{
		"cut short":    func(b []byte) []byte { return b[:len(b)-1] },
		"cut in half":  func(b []byte) []byte { return b[:len(b)/2] },
		"empty":        func([]byte) []byte { return nil },
		"longer":       func(b []byte) []byte { return append(b, 0) },
		"flipped":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"flipped head": func(b []byte) []byte { b[30] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			c := config(restoreInto(t, damage(bytes.Clone(whole))))
			if n, err := cluster.Open(t.Context(), c); err == nil {
				shut(t, n)
				t.Fatal("opened")
			}
		})
	}
	t.Run("another region", func(t *testing.T) {
		c := config(restoreInto(t, whole))
		c.Region = "us"
		if _, err := cluster.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "region eu") {
			t.Fatalf("got %v", err)
		}
	})
}
