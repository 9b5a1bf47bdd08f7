package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// DefaultEndpoint is where a node listens when nothing is configured.
const DefaultEndpoint = "http://127.0.0.1:8080"

const defaultPort = "8080"

// Config says where the nodes are and how patient the client is. The zero value
// of every field but Endpoints is usable.
type Config struct {
	// Endpoints of any nodes of the mesh: ws://, wss://, http://, https:// or
	// host:port. The first Dial tries them in this order, later ones at random.
	Endpoints []string
	TLS       *tls.Config  // for wss and https; nil: the system's roots
	Logger    *slog.Logger // connections made and lost; nil: silent
	CBOR      bool         // speak CBOR with nodes that do, JSON with others

	// Token returns the bearer token to be sent now; nil, or "": none. It is
	// asked for each connection, for each page read over HTTP, when 80 % of the
	// life of the last token is over, and when a node refuses one: it should
	// keep a token that is good, and return another where it has one. A node that
	// can't tell yet (the token's key is new, say) is asked again in a while. It is
	// called from several goroutines and must return when ctx ends. The token
	// is never logged.
	Token func(ctx context.Context) (string, error)

	// Wait makes Dial try until its context ends. Otherwise it fails when
	// every endpoint was tried once.
	Wait bool
	// FailFast returns retryable errors instead of trying again until the
	// caller's context ends. Lost connections are still mended.
	FailFast bool

	DialTimeout time.Duration // one attempt up to the node's hello; 0: 5 s
	BackoffMin  time.Duration // mean of the first pause between attempts; 0: 50 ms
	BackoffMax  time.Duration // largest mean pause; 0: 2 s
	PauseMin    time.Duration // least pause after a 41xx close; 0: 1 s
}

func (cfg *Config) setDefaults() error {
	if len(cfg.Endpoints) == 0 {
		return errors.New("no endpoints configured")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&cfg.DialTimeout, 5 * time.Second},
		{&cfg.BackoffMin, 50 * time.Millisecond},
		{&cfg.BackoffMax, 2 * time.Second},
		{&cfg.PauseMin, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if cfg.BackoffMin > cfg.BackoffMax {
		return fmt.Errorf("BackoffMin %v is above BackoffMax %v", cfg.BackoffMin, cfg.BackoffMax)
	}
	return nil
}

// codecs are those to offer, the preferred one first.
func (cfg *Config) codecs() []protocol.Codec {
	if cfg.CBOR {
		return []protocol.Codec{protocol.CBOR, protocol.JSON}
	}
	return []protocol.Codec{protocol.JSON}
}

func (cfg *Config) subprotocols() (names []string) {
	for _, c := range cfg.codecs() {
		names = append(names, c.Subprotocol())
	}
	return names
}

// parseEndpoint returns the endpoint as ws://host:port or wss://host:port,
// without a path.
func parseEndpoint(s string) (string, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "://") {
		s = "ws://" + s
		if u, err := url.Parse(s); err == nil && u.Port() == "" && u.Hostname() != "" {
			s = "ws://" + net.JoinHostPort(u.Hostname(), defaultPort)
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("endpoint %q: %w", s, err)
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("endpoint %q names no host", s)
	}
	switch u.Scheme {
	case "ws", "http":
		return "ws://" + u.Host, nil
	case "wss", "https":
		return "wss://" + u.Host, nil
	}
	return "", fmt.Errorf("endpoint %q: want ws, wss, http or https", s)
}

// httpBase returns the http:// or https:// form of an endpoint.
func httpBase(endpoint string) string { return "http" + strings.TrimPrefix(endpoint, "ws") }
