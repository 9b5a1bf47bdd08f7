package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// throttleWindow is the time in which lines that are like one another are counted.
	throttleWindow = 10 * time.Second

	// throttleKindsMax bounds the kinds of lines that are told apart. Messages hardly ever
	// hold anything that changes, so there are far fewer; those beyond it count as one kind
	// of their level.
	throttleKindsMax = 1024

	// auditMessage is of lines that are never left out: they say who did what, and who
	// writes them has a limit of its own.
	auditMessage = "audit"
)

// throttle keeps one kind of line, of the same level and message, from filling the log:
// so many of a kind are written within a window, and those beyond are counted in one line
// at its end. A fault repeats its line thousands of times a second, when the disk that
// the log is on is the least able to bear it.
type throttle struct {
	burst   int
	dropped *prometheus.CounterVec
	next    slog.Handler

	mu    sync.Mutex
	kinds map[kind]*tally
	swept time.Time // when kinds were last looked through
}

// kind is what makes lines like one another.
type kind struct {
	level   slog.Level
	message string // "" stands for all messages beyond throttleKindsMax
}

// tally counts one kind of line.
type tally struct {
	begun time.Time // of its window
	lines int       // written in it
	out   int       // left out since the last line that told of it
	end   *time.Timer
}

// newThrottle lets through burst lines of a kind in a window; 0 and less is no limit.
func newThrottle(next slog.Handler, burst int) *throttle {
	t := &throttle{
		burst: burst, next: next, kinds: make(map[kind]*tally),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockmesh_log_lines_dropped_total",
			Help: "Lines left out of the log, as there were more than --log-burst like them within 10 s.",
		}, []string{"level"}),
	}
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		t.dropped.WithLabelValues(levelLabel(l)) // 0 rather than missing
	}
	return t
}

func (t *throttle) logger() *slog.Logger {
	if t.burst <= 0 {
		return slog.New(t.next)
	}
	return slog.New(&throttled{t, t.next})
}

// admit reports whether a line may be written now.
func (t *throttle) admit(level slog.Level, message string) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k, c := t.tallyOf(level, message, now)
	if now.Sub(c.begun) >= throttleWindow {
		c.begun, c.lines = now, 0
	}
	if c.lines < t.burst {
		c.lines++
		return true
	}
	if c.out++; c.end == nil {
		c.end = time.AfterFunc(c.begun.Add(throttleWindow).Sub(now), func() { t.tell(k) })
	}
	t.dropped.WithLabelValues(levelLabel(level)).Inc()
	return false
}

// tallyOf is called with mu held.
func (t *throttle) tallyOf(level slog.Level, message string, now time.Time) (kind, *tally) {
	k := kind{level, message}
	if c := t.kinds[k]; c != nil {
		return k, c
	}
	if len(t.kinds) >= throttleKindsMax && now.Sub(t.swept) >= throttleWindow {
		t.sweep(now)
	}
	if len(t.kinds) >= throttleKindsMax {
		k.message = ""
	}
	c := t.kinds[k]
	if c == nil {
		c = &tally{begun: now}
		t.kinds[k] = c
	}
	return k, c
}

// sweep forgets the kinds that were not seen lately. It is called with mu held.
func (t *throttle) sweep(now time.Time) {
	t.swept = now
	for k, c := range t.kinds {
		if c.end == nil && now.Sub(c.begun) >= throttleWindow {
			delete(t.kinds, k)
		}
	}
}

// tell writes how many lines of a kind were left out.
func (t *throttle) tell(k kind) {
	t.mu.Lock()
	c := t.kinds[k]
	if c == nil || c.end == nil {
		t.mu.Unlock()
		return // somebody has told of it
	}
	c.end.Stop()
	out := c.out
	c.out, c.end = 0, nil
	t.mu.Unlock()
	r := slog.NewRecord(time.Now(), k.level, fmt.Sprintf("%d lines like it were left out", out), 0)
	if k.message != "" {
		r.AddAttrs(slog.String("message", k.message))
	}
	_ = t.next.Handle(context.Background(), r) // a log that can't be written has nobody to tell
}

// flush tells of all that was left out and not told of yet: the program ends.
func (t *throttle) flush() {
	t.mu.Lock()
	var due []kind
	for k, c := range t.kinds {
		if c.end != nil {
			due = append(due, k)
		}
	}
	t.mu.Unlock()
	for _, k := range due {
		t.tell(k)
	}
}

// levelLabel names a level, and those between two by the lower.
func levelLabel(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// throttled is a handler that asks the throttle. Those made from it share it.
type throttled struct {
	*throttle
	next slog.Handler
}

// Enabled implements slog.Handler.
func (h *throttled) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *throttled) Handle(ctx context.Context, r slog.Record) error {
	if r.Message != auditMessage && !h.admit(r.Level, r.Message) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *throttled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &throttled{h.throttle, h.next.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h *throttled) WithGroup(name string) slog.Handler {
	return &throttled{h.throttle, h.next.WithGroup(name)}
}
