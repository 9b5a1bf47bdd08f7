package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// newLogHandler writes lines from a level on, as text, in colour on a terminal, or JSON.
func newLogHandler(out io.Writer, format, level string) (slog.Handler, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	if format == "json" {
		return slog.NewJSONHandler(out, &slog.HandlerOptions{Level: l}), nil
	}
	file, isFile := out.(*os.File)
	colour := isFile && term.IsTerminal(int(file.Fd()))
	return tint.NewTextHandler(out, &tint.Options{Level: l, TimeFormat: time.DateTime, NoColor: !colour}), nil
}
