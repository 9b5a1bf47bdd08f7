package clustertest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// stallWatch measures the machine beside the nodes: how long one small write to the
// disk takes, waking up for it included. What the machine does to everybody is not
// held against the region.
type stallWatch struct {
	mu      sync.Mutex
	longest time.Duration
	err     error
}

// stallEvery is the pause between two writes; no stall that matters is shorter.
const stallEvery = 100 * time.Millisecond

// run watches until ctx ends.
func (w *stallWatch) run(ctx context.Context, dir string) {
	f, err := os.Create(filepath.Join(dir, "stall"))
	if err != nil {
		w.note(0, err)
		return
	}
	defer f.Close()
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		_, err := f.WriteAt([]byte{1}, 0)
		if err == nil {
			err = f.Sync()
		}
		w.note(time.Since(due), err)
		due = time.Now().Add(stallEvery)
		timer.Reset(stallEvery)
	}
}

func (w *stallWatch) note(took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, took)
	if w.err == nil {
		w.err = err
	}
}

func (w *stallWatch) result() (longest time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest, w.err
}
