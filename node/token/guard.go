package token

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Config says whom a Guard lets in. Zero values mean the stated defaults.
type Config struct {
	// Keys is where the public keys of the token issuer are: the URL of a JWKS (https, or
	// http to loopback), or a file with a JWKS or public keys in PEM. "": no tokens are
	// taken, which needs ClientCertificates.
	Keys string

	// Issuer must be a token's iss, and Audience be among its aud. Each is optional: ""
	// takes any, which is right only where the keys sign for nobody else.
	Issuer, Audience string

	Region string // of this node, for the access that grants give

	// ClientCertificates lets a verified client certificate stand for a token.
	ClientCertificates bool

	RefreshEvery time.Duration // 5 m, more or less a tenth: how often a URL is read again
	RefreshLeast time.Duration // 10 s: between readings that tokens with unknown keys ask for, after three in a row
	StaleMax     time.Duration // 24 h: how long keys are used after the last good reading

	Client     *http.Client          // for the URL; nil: one of its own. It follows no redirects either way
	Now        func() time.Time      // the clock; nil: the system's
	Logger     *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: none
}

func (c Config) withDefaults() Config {
	if c.RefreshEvery <= 0 {
		c.RefreshEvery = 5 * time.Minute
	}
	if c.RefreshLeast <= 0 {
		c.RefreshLeast = 10 * time.Second
	}
	if c.StaleMax <= 0 {
		c.StaleMax = 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// ErrNoKeys is what Health's error wraps while no token can be taken: no keys were ever
// had, those that were are too old, or the source says that there are none. Errors
// without it are only a warning.
var ErrNoKeys = errors.New("no keys to check tokens with")

// Guard tells who a client is. Its methods may be called from any goroutine.
type Guard struct {
	config  Config
	keeper  *keeper // nil: no tokens are taken
	revoked atomic.Pointer[revocations]
	metrics *metrics
}

// New returns a guard that has read its keys. A file that can't be read, or holds keys
// of which none can be used, is an error; a JWKS without keys is not. A URL that can't be read within two seconds, or
// until ctx ends, is not: it is tried again, and Health tells. ctx bounds New alone;
// Close ends the guard.
func New(ctx context.Context, c Config) (*Guard, error) {
	c = c.withDefaults()
	if c.Keys == "" && !c.ClientCertificates {
		return nil, errors.New("token: neither keys nor client certificates: nobody could come in")
	}
	g := &Guard{config: c}
	g.Revoke(nil)
	if c.Keys != "" {
		source, err := newSource(c.Keys, c.Client)
		if err != nil {
			return nil, err
		}
		if g.keeper, err = newKeeper(ctx, source, c); err != nil {
			return nil, err
		}
	}
	g.metrics = newMetrics(c.Registerer, g.keeper)
	return g, nil
}

// Token checks a token and returns the caller it names. A token signed with a key that
// isn't known waits for the keys to be read again, for two seconds at most, and no longer
// than ctx.
//
// Errors have CodeUnauthorized, and say which check failed and nothing of the token.
// They are retryable where the key is unknown and no reading of the keys since the token
// came has said so. CodeUnavailable, always retryable, means there are no keys yet, or only ones that
// are too old.
func (g *Guard) Token(ctx context.Context, token string) (*protocol.Caller, *protocol.Error) {
	caller, refused := g.check(ctx, token)
	g.metrics.count(refused)
	if refused != nil {
		return nil, refused.err()
	}
	return caller, nil
}

func (g *Guard) check(ctx context.Context, token string) (*protocol.Caller, *refusal) {
	if g.keeper == nil {
		return nil, refusedNotTaken
	}
	t, refused := split(token)
	if refused != nil {
		return nil, refused
	}
	if refused := g.verify(ctx, &t); refused != nil {
		return nil, refused
	}
	caller, refused := g.caller(t.payload)
	if refused != nil {
		return nil, refused
	}
	if g.revoked.Load().covers(caller, g.config.Now()) {
		return nil, refusedRevoked
	}
	return caller, nil
}

// verify checks the signature, with keys read again where those at hand don't do.
func (g *Guard) verify(ctx context.Context, t *signed) *refusal {
	set := g.keeper.usable()
	if set == nil {
		retryMS := g.keeper.ask(ctx, "")
		if set = g.keeper.usable(); set == nil {
			return noKeys(max(1, retryMS))
		}
	}
	refused, known := set.verify(t)
	if refused == nil || known {
		return refused
	}
	retryMS := g.keeper.ask(ctx, t.kid)
	newer := g.keeper.usable()
	if newer == nil || newer == set {
		return refused.later(retryMS)
	}
	if refused, _ = newer.verify(t); refused == nil {
		return nil
	}
	return refused.later(retryMS)
}

// Valid reports whether a caller that was let in may stay: not expired, not revoked. It
// takes no lock.
func (g *Guard) Valid(c *protocol.Caller) bool {
	if c == nil {
		return false
	}
	now := g.config.Now()
	if !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt) {
		return false
	}
	return !g.revoked.Load().covers(c, now)
}

// Revoke replaces the list of what was revoked.
func (g *Guard) Revoke(list []Revocation) { g.revoked.Store(newRevocations(list)) }

// Health returns nil while keys are read as they should be. An error that wraps ErrNoKeys
// says that no token can be taken at all, others that keys couldn't be read lately and
// earlier ones are in use.
func (g *Guard) Health() error {
	if g.keeper == nil {
		return nil
	}
	return g.keeper.health()
}

// Close ends the reading of keys and waits for it. A token is still checked, with the
// keys at hand.
func (g *Guard) Close() {
	if g.keeper != nil {
		g.keeper.close()
	}
}
