package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"

	"github.com/spf13/pflag"
)

// bindObserved makes the fields of what watches a node settable by flags.
func (c *Config) bindObserved(f *pflag.FlagSet) {
	f.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`FORMAT` of log lines: text or json")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "least `LEVEL` of log lines: debug, info, warn or error")
	f.IntVar(&c.LogBurst, "log-burst", c.LogBurst, "lines of one level and message that are logged within 10 s; of those beyond, one line tells the number (0 or less: all are logged)")
	f.StringVar(&c.TraceEndpoint, "trace-endpoint", c.TraceEndpoint, "`URL` of a collector that traces of commands are sent to, OTLP over HTTP, as http://127.0.0.1:4318 (empty: no traces)")
	f.Float64Var(&c.TraceRatio, "trace-ratio", c.TraceRatio, "share of commands that are traced, 0 to 1 (0: only those whose client asks for it)")
}

// checkObserved takes any address for --metrics: what it serves changes nothing and
// shows no stock.
func (c *Config) checkObserved() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(c.Metrics); c.Metrics != "" && err != nil {
		bad("--metrics %q: want host:port", c.Metrics)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("--log-format %q: want text or json", c.LogFormat)
	}
	if new(slog.Level).UnmarshalText([]byte(c.LogLevel)) != nil {
		bad("--log-level %q: want debug, info, warn or error", c.LogLevel)
	}
	if !(c.TraceRatio >= 0 && c.TraceRatio <= 1) { // so that NaN is refused too
		bad("--trace-ratio %v: want 0 to 1", c.TraceRatio)
	}
	return append(errs, c.checkTraceEndpoint())
}

// checkTraceEndpoint doesn't quote the URL: a password may be in it.
func (c *Config) checkTraceEndpoint() error {
	if c.TraceEndpoint == "" {
		return nil
	}
	u, err := url.Parse(c.TraceEndpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("--trace-endpoint: want http://host:port or https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("--trace-endpoint: want no user, password or query in the URL: the configuration is shown to whoever asks for it")
	}
	return nil
}
