package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// serverLog hands the server's lines to a slog.Logger. It never ends the
// process, which the server's own logger does on a fatal line: Open and Err
// return that line as an error instead.
type serverLog struct {
	to   *slog.Logger
	died atomic.Pointer[string]
}

func newServerLog(to *slog.Logger) *serverLog {
	if to == nil {
		to = slog.New(slog.DiscardHandler)
	}
	return &serverLog{to: to.With("part", "nats")}
}

// fatal returns the first fatal line.
func (l *serverLog) fatal() error {
	if s := l.died.Load(); s != nil {
		return errors.New("bus: server: " + *s)
	}
	return nil
}

// Notices are some twenty lines at each start and stop, of interest only to whoever
// looks into the engine.
func (l *serverLog) Noticef(f string, v ...any) { l.to.Debug(fmt.Sprintf(f, v...)) }
func (l *serverLog) Warnf(f string, v ...any)   { l.write(slog.LevelWarn, fmt.Sprintf(f, v...)) }
func (l *serverLog) Errorf(f string, v ...any)  { l.write(slog.LevelError, fmt.Sprintf(f, v...)) }

// expected begin lines that the server writes over and over, some several times a
// second, while a peer is away or the region starts; health says it once.
var expected = [...]string{
	"Error trying to connect to route", "Error trying to connect as leafnode", "Waiting for routing to be established",
	"JetStream has not established contact with a meta leader", "Metalayer blocking snapshot",
}

func (l *serverLog) write(level slog.Level, line string) {
	for _, e := range expected {
		if strings.HasPrefix(line, e) {
			level = slog.LevelDebug
		}
	}
	l.to.Log(context.Background(), level, line)
}

func (l *serverLog) Fatalf(f string, v ...any) {
	line := fmt.Sprintf(f, v...)
	l.died.CompareAndSwap(nil, &line)
	l.to.Error(line)
}

// The server is told never to write these.
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}
