package gossip

import (
	"bytes"
	"log/slog"
	"strings"
)

// lineWriter hands memberlist's lines to a slog.Logger. Its informational lines
// are about single probes and connections, so they are Debug here; its errors
// mostly mean that another node was not reached, so they are Warn.
type lineWriter struct{ to *slog.Logger }

func (w lineWriter) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	level, text, ok := strings.Cut(line, "] ")
	if !ok || !strings.HasPrefix(level, "[") {
		level, text = "", line
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch level {
	case "[WARN", "[ERR":
		w.to.Warn("memberlist: " + text)
	default:
		w.to.Debug("memberlist: " + text)
	}
	return len(p), nil
}
