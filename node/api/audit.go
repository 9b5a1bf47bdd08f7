package api

import (
	"log/slog"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// auditsPerSecond bounds the lines about refused writes: whoever is refused may try
// again as fast as they like.
const auditsPerSecond = 10

// audit logs the writes that were refused for who sent them. Those that were done
// stand in the movement history.
type audit struct {
	log *slog.Logger

	mu      sync.Mutex
	begun   time.Time // of the present second
	lines   int       // logged in it
	leftOut int       // since the last line
}

// refused logs a refused write; key is the client's and of any length.
func (a *audit) refused(subject, address, op, key string, code protocol.Code) {
	leftOut, ok := a.take(time.Now())
	if !ok {
		return
	}
	attrs := []any{"subject", subject, "address", address, "op", op, "key", key[:min(len(key), protocol.NameBytesMax)], "code", code}
	if leftOut > 0 {
		attrs = append(attrs, "left_out", leftOut)
	}
	a.log.Info("audit: refused", attrs...)
}

// take reports whether a line may be logged now, and how many were not since the last.
func (a *audit) take(now time.Time) (leftOut int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.begun) >= time.Second {
		a.begun, a.lines = now, 0
	}
	if a.lines >= auditsPerSecond {
		a.leftOut++
		return 0, false
	}
	a.lines++
	leftOut, a.leftOut = a.leftOut, 0
	return leftOut, true
}
