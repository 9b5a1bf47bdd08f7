package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	// tokenWait bounds one call of Config.Token.
	tokenWait = 30 * time.Second
	// tokenBytesMax is more than nodes take.
	tokenBytesMax = 16 << 10
	// refusalsMax is how often in a row a token may be refused: one that was
	// revoked, or replaced while it was on its way, is refused once.
	refusalsMax = 3
	// provenAfter is longer than a node lets a connection stay without a token.
	provenAfter = 10 * time.Second
)

// StaticToken is a Config.Token that always returns the same; "" sends none.
func StaticToken(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// token asks for the token to be sent now, "" where there is none.
func (c *Client) token(ctx context.Context) (string, error) {
	if c.cfg.Token == nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenWait)
	defer cancel()
	token, err := c.cfg.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoToken, err)
	}
	token = strings.TrimSpace(token)
	if len(token) > tokenBytesMax || strings.Trim(token, tokenLetters) != "" {
		return "", fmt.Errorf("%w: what it returned can't be sent as one (%d bytes)", ErrNoToken, len(token))
	}
	return token, nil
}

// tokenLetters are all that a bearer token may hold (RFC 6750). Anything else would
// be refused further down by errors that may quote it.
const tokenLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

func bear(h http.Header, token string) {
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
}

// credential is what a node knows a link by, without the token itself.
type credential struct {
	sum     [sha256.Size]byte
	expires time.Time // zero: not known
}

func newCredential(token string) credential {
	return credential{sha256.Sum256([]byte(token)), expiryOf(token)}
}

// expiryOf reads when a token ends, without verifying anything: it only tells when to
// ask for the next one. Zero where the token doesn't say.
func expiryOf(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if protocol.UnmarshalJSON(text, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return time.Time{}
	}
	return time.UnixMilli(int64(claims.Expires * 1000))
}

// refusal is a token that a node did not take. Another one is asked for, until that
// has happened too often in a row.
type refusal struct {
	times int32
	err   error // a *protocol.Error or a *CloseError
}

func (e *refusal) Error() string {
	if !e.final() {
		return e.err.Error()
	}
	return fmt.Sprintf("client: no token was taken, %d were refused in a row; the last one: %v", e.times, e.err)
}

func (e *refusal) Unwrap() error { return e.err }

func (e *refusal) final() bool { return e.times >= refusalsMax }

// counted counts err where it says that a token was refused. Without tokens to ask
// for nothing would be better the next time.
func (c *Client) counted(err error) error {
	if c.cfg.Token == nil || !isUnauthorized(err) {
		return err
	}
	return &refusal{c.refusals.Add(1), err}
}

// trusted notes that a node has taken the token.
func (c *Client) trusted() {
	if c.refusals.Load() != 0 { // looked at first: it is zero nearly always, and shared
		c.refusals.Store(0)
	}
}

func isUnauthorized(err error) bool {
	return errors.Is(err, &protocol.Error{Code: protocol.CodeUnauthorized})
}

// keepSecret is an http.Client's CheckRedirect. No other host or port gets the token,
// which net/http would send to subdomains and to all ports of the host; neither may the
// same one without TLS. Nor is a client without a token led away: it may send one later.
func keepSecret(r *http.Request, via []*http.Request) error {
	if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return errors.New("a redirect away from TLS")
	}
	if !strings.EqualFold(via[0].URL.Host, r.URL.Host) {
		return errors.New("a redirect to another host")
	}
	if len(via) >= 10 {
		return errors.New("too many redirects")
	}
	return nil
}
