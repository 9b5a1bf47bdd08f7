package bus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// following reads a table until the test ends; the keys come in the order of their writes.
func following(t *testing.T, table *Table) (keys func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var seen []string
	ended := make(chan error, 1)
	go func() {
		ended <- table.Follow(ctx, func(rows []Row) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range rows {
				seen = append(seen, r.Key+"="+string(r.Value))
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func write(t *testing.T, table *Table, key, value string, revision uint64) uint64 {
	t.Helper()
	return must[[]Result](t)(table.Put(t.Context(), []Row{{Key: key, Value: []byte(value), Revision: revision}}))[0].Revision
}

func TestTableIsFollowed(t *testing.T) {
	table := newTable(t, openBus(t))
	a := write(t, table, "a", "1", 0)
	keys := following(t, table)
	eventually(t, "what there was is told", func() bool { return len(keys()) == 1 })
	write(t, table, "b", "1", 0)
	write(t, table, "a", "2", a)
	eventually(t, "what comes is told", func() bool { return len(keys()) == 3 })
	if diff := cmp.Diff([]string{"a=1", "b=1", "a=2"}, keys()); diff != "" {
		t.Error(diff)
	}
	if last := must[uint64](t)(table.Last(t.Context())); last != 3 {
		t.Errorf("last revision %d", last)
	}
}

// A row is dropped as it was looked at or not at all; what else there is stays, also in
// number, and the key may be used again.
func TestRowsAreDropped(t *testing.T) {
	table := newTable(t, openBus(t))
	a := write(t, table, "a", "1", 0)
	b := write(t, table, "b", "1", 0)
	again := write(t, table, "a", "2", a)
	drop := func(key string, revision uint64) {
		t.Helper()
		if err := table.Drop(t.Context(), Row{Key: key, Revision: revision}); err != nil {
			t.Fatal(err)
		}
	}
	drop("a", a) // too old
	drop("none", 99)
	if rows := rowsOf(t, table); len(rows) != 2 {
		t.Fatalf("got %v", rows)
	}
	drop("b", b)
	drop("a", again)
	if rows := rowsOf(t, table); len(rows) != 0 {
		t.Fatalf("got %v", rows)
	}
	if last := must[uint64](t)(table.Last(t.Context())); last != again {
		t.Errorf("last revision %d, want %d", last, again)
	}
	keys := following(t, table)
	write(t, table, "b", "3", 0)
	eventually(t, "a row is told that was dropped before", func() bool { return len(keys()) == 1 })
}
