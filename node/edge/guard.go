package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"github.com/stockmesh/stockmesh/protocol"
)

// Guard tells who a client is. Its methods may be called from any goroutine.
type Guard interface {
	// Token checks a token. It may wait for keys, until ctx ends. Errors have
	// CodeUnauthorized, or CodeUnavailable where no keys could be had yet, and hold
	// nothing of the token.
	Token(ctx context.Context, token string) (*protocol.Caller, *protocol.Error)
	// Certificate returns the caller that a verified client certificate names; nil: none.
	Certificate(cert *x509.Certificate) *protocol.Caller
	// Valid reports whether a caller that was let in may stay: not expired, not revoked.
	// It is asked about once a second for each session.
	Valid(c *protocol.Caller) bool
}

// Quota counts what subjects use, over the region.
type Quota interface {
	// Account is that of a subject; each call is paired with one of Account.Release.
	Account(subject string) Account
}

// Account is what one subject uses. Its methods don't block and may be called from any
// goroutine.
type Account interface {
	// Spend takes up to n commands; where it takes fewer, more come after retryAfterMS.
	Spend(n int) (allowed int, retryAfterMS int64)
	// Connect takes a connection; false: there is no room, nothing was taken.
	Connect() bool
	Disconnect()
	// Subscribe takes n selectors, all or none.
	Subscribe(n int) bool
	Unsubscribe(n int)
	Release()
}

// client is whom a connection speaks for. Where nobody is asked who they are, the
// connections of a loop share one until they send a command.
type client struct {
	caller  *protocol.Caller // nil: not known yet
	account Account          // nil: no limits, or not known yet
	address string           // without port; "" until it is needed
	since   moment           // when the connection became a session
	check   *check           // of a token, under way; nil: none
}

// access is what a connection's caller may do: nothing, as long as it isn't known.
func (c *conn) access() *protocol.Access {
	if c.who == nil || c.who.caller == nil {
		return nil
	}
	return c.who.caller.Access
}

// known reports whether it was found out who a connection speaks for.
func (c *conn) known() bool { return c.who != nil && c.who.caller != nil }

// view is the access to filter items by, nil where all may be seen.
func (c *conn) view() *protocol.Access {
	switch a := c.access(); {
	case a == nil:
		return protocol.NewAccess("", nil)
	case a.SeesAll():
		return nil
	default:
		return a
	}
}

// checking reports whether a connection waits for a token to be checked. It is not
// read from meanwhile, and what it has sent already is not looked at.
func (c *conn) checking() bool { return c.who != nil && c.who.check != nil }

// named returns whom a connection speaks for, with its address. That is made with the
// first command, so that a connection that just listens has none.
func (c *conn) named() *client {
	if c.who.address == "" {
		own := *c.who
		own.address = c.ip().String()
		c.who = &own
	}
	return c.who
}

// certificate is the one that a client has shown in its TLS handshake, if it was
// verified.
func (c *conn) certificate() *x509.Certificate {
	s := c.tls()
	if s == nil {
		return nil
	}
	if chain := verified(s.conn); len(chain) > 0 {
		return chain[0]
	}
	return nil
}

func verified(c *tls.Conn) []*x509.Certificate {
	state := c.ConnectionState()
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.PeerCertificates
}

// PeerCertificates returns what a client has shown in its TLS handshake, its own
// certificate first; nil where it showed none or none was verified. It takes
// connections of Edge.HTTP: these are no *tls.Conn, so net/http doesn't fill in
// Request.TLS. An http.Server's ConnContext is the place to ask and to keep it for the
// requests.
func PeerCertificates(c net.Conn) []*x509.Certificate {
	if r, ok := c.(*replayConn); ok {
		c = r.Conn
	}
	if t, ok := c.(*tls.Conn); ok {
		return verified(t)
	}
	return nil
}
