package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// revokingBackup is the backup of a region that has revoked something, with what it has.
func revokingBackup(t *testing.T) (file []byte, revoked []cluster.Revocation) {
	t.Helper()
	n := open(t, config(t.TempDir()))
	must(t, n, count("k", "A", 10))
	hour := time.Now().Add(time.Hour)
	for _, rev := range []cluster.Revocation{
		{TokenID: "stolen", Until: hour}, {TokenID: "红 *.>"}, {Subject: "shop", Before: time.Now()}, {Subject: "till 4", Until: hour},
	} {
		if err := n.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := n.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), n.Revocations()
}

// What was revoked stays revoked in a region that begins with a backup, from the moment it
// lets anybody in.
func TestRestoreKeepsRevocations(t *testing.T) {
	file, want := revokingBackup(t)
	c := config(restoreInto(t, file))
	for _, start := range []string{"first", "second"} {
		n := open(t, c)
		if diff := cmp.Diff(want, n.Revocations()); diff != "" {
			t.Fatalf("%s start: %s", start, diff)
		}
		n.OnRevoked(func(list []cluster.Revocation) {
			if len(list) != len(want) {
				t.Errorf("%s start: told of %d, not %d", start, len(list), len(want))
			}
		})
		shut(t, n)
	}
}

// In a region of three the nodes that start with nothing know it too before they let
// anybody in.
func TestRestoredRegionKeepsRevocations(t *testing.T) {
	file, want := revokingBackup(t)
	ports := loopback.Addresses(t, 6)
	dirs := []string{t.TempDir(), restoreInto(t, file), t.TempDir()}
	var opening sync.WaitGroup
	ctx, giveUp := context.WithCancel(t.Context()) // the others would wait for one that failed
	defer giveUp()
	for i, dir := range dirs {
		c := config(dir)
		c.Node = fmt.Sprintf("eu-%d", i+1)
		c.Members = &cluster.Members{Expect: 3, Gossip: ports[2*i], Join: ports[:1], Cluster: ports[2*i+1]}
		opening.Go(func() {
			n, err := cluster.Open(ctx, c)
			if err != nil {
				t.Errorf("%s: %v", c.Node, err)
				giveUp()
				return
			}
			if diff := cmp.Diff(want, n.Revocations()); diff != "" {
				t.Errorf("%s: %s", c.Node, diff)
			}
			t.Cleanup(func() { shutNow(t, n) })
		})
	}
	opening.Wait()
}

// A backup of before there were revocations in it is restored, and that it has none is
// said. The file was written by that version, and is never written again.
func TestEarlyBackupIsRestored(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("testdata", "early.stockmesh"))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := config(restoreInto(t, file))
	c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n := open(t, c)
	if items := everything(n); len(items) != 1 || items[0].OnHand != 7 || len(n.Revocations()) != 0 {
		t.Errorf("got %+v, revoked %v", items, n.Revocations())
	}
	shut(t, n)
	if !strings.Contains(log.String(), "holds no revocations") {
		t.Errorf("logged %q", &log)
	}
}

// resealed gives what is left of a backup the digest that is right for it.
func resealed(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(bytes.Clone(content), sum[:]...)
}

// However the digest is: what is revoked is read whole, or the backup is refused.
func TestWrongRevocationsInABackup(t *testing.T) {
	file, _ := revokingBackup(t)
	content := file[:len(file)-sha256.Size]
	mark := []byte("revocations\n")
	for name, damage := range map[string]struct{ content, want string }{
		"other mark": {string(bytes.Replace(content, mark, []byte("reservations"), 1)), "behind the shards"},
		"half mark":  {string(content[:bytes.Index(content, mark)+5]), "behind the shards"},
		"mark alone": {string(content[:bytes.Index(content, mark)+len(mark)]), "cut short"},
		"no end":     {string(content[:len(content)-1]), "cut short"},
		"more":       {string(content) + "x", "bytes behind the end"},
		"no JSON":    {strings.Replace(string(content), `{"token_id"`, `["token_id"`, 1), "revocation "},
		"of nothing": {strings.Replace(string(content), `"token_id"`, `"token_ix"`, 1), "not a revocation"},
	} {
		if damage.content == string(content) {
			t.Fatalf("%s: nothing was changed", name)
		}
		n, err := cluster.Open(t.Context(), config(restoreInto(t, resealed([]byte(damage.content)))))
		if err == nil {
			shut(t, n)
		}
		if err == nil || !strings.Contains(err.Error(), damage.want) {
			t.Errorf("%s: error is %v, want %q in it", name, err, damage.want)
		}
	}
	// A backup that ends behind the shards is one of an earlier version.
	n := open(t, config(restoreInto(t, resealed(content[:bytes.Index(content, mark)]))))
	if items := everything(n); len(items) != 1 || len(n.Revocations()) != 0 || items[0].SKU != "A" {
		t.Errorf("got %+v", items)
	}
}
