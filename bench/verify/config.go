// Package verify holds live nodes against what a mesh promises about stock, as far as
// that can be seen from outside.
//
// It subscribes to everything on every node and keeps what each has said of each item
// last, in tables without pointers: a million items on three nodes take some 250 MB. What
// the nodes show is compared as it comes, so traffic may go on meanwhile. Then the
// histories of some items are read in every region that has a part in them, and every node
// is asked for its view of the mesh.
//
// It does not use protocol/client, which drops what is older than what it has and connects
// again by itself: both would hide what is looked for here.
package verify

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config says what to look at. The zero value of a field stands for its default.
type Config struct {
	// Endpoints are the nodes' WebSockets: ws://host:port/v1/ws or wss://. A token stands in
	// the place of a password. It must allow watch, history and admin; what it doesn't
	// allow is left out and noted.
	Endpoints []string
	TLS       *tls.Config

	Prefixes []string      // only SKUs that begin so; none: all
	Watch    time.Duration // how long to go on looking at what changes; 0: not at all

	// Settle is how long a node may take to show what another one has shown (default 10s).
	Settle time.Duration

	Sample    int           // items of which histories are read (default 1,000, fewer where there are fewer); negative: none
	Depth     int           // movements read of an item and region, newest first (default 500)
	KeyWindow time.Duration // for how long the nodes remember keys (default 24h)

	// Own says that nobody has ever pruned a history, made a setting or forbidden anything:
	// then what can't be looked at is a fault too.
	Own bool

	// Progress is told what is done at present, and how much of it: total is 0 where that
	// is not known. It is called from one goroutine, now and then.
	Progress func(what string, done, total int)
}

// Defaults of a Config.
const (
	SettleDefault    = 10 * time.Second
	SampleDefault    = 1000
	DepthDefault     = 500
	KeyWindowDefault = 24 * time.Hour
)

func (c Config) complete() (Config, error) {
	c.Settle = orDefault(c.Settle, SettleDefault)
	c.Sample = orDefault(c.Sample, SampleDefault)
	c.Depth = orDefault(c.Depth, DepthDefault)
	c.KeyWindow = orDefault(c.KeyWindow, KeyWindowDefault)
	if c.Progress == nil {
		c.Progress = func(string, int, int) {}
	}
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints"))
	}
	if c.Settle < 0 || c.Watch < 0 || c.Depth < 0 || c.KeyWindow < 0 {
		errs = append(errs, fmt.Errorf("settle %v, watch %v, depth %d, key window %v: none may be negative", c.Settle, c.Watch, c.Depth, c.KeyWindow))
	}
	return c, errors.Join(errs...)
}

func orDefault[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}

// address is where a node is found.
type address struct {
	ws, mesh string // without the token
	token    string
	shown    string // for people
}

func parseEndpoint(endpoint string) (address, error) {
	u, err := url.Parse(endpoint)
	if err != nil { // it may hold a token, and so may the error
		return address{}, errors.New("an endpoint that can't be read: want ws://host:port/v1/ws")
	}
	a := address{shown: u.Redacted()}
	a.token, _ = u.User.Password()
	u.User = nil
	schemes := map[string]string{"ws": "http", "wss": "https"}
	if schemes[u.Scheme] == "" || u.Host == "" {
		return address{}, fmt.Errorf("%s: want ws://host:port/v1/ws", a.shown)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/ws"
	}
	a.ws = u.String()
	u.Scheme, u.Path = schemes[u.Scheme], "/v1/mesh"
	a.mesh = u.String()
	return a, nil
}
