package api

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"

	"github.com/stockmesh/stockmesh/protocol"
)

// Guard tells who a client is. Its methods may be called from any goroutine.
type Guard interface {
	// Token checks a token. It may wait for keys, until ctx ends. Errors have
	// CodeUnauthorized, or CodeUnavailable where no keys could be had yet, and say
	// nothing of the token.
	Token(ctx context.Context, token string) (*protocol.Caller, *protocol.Error)
	// Certificate returns the caller that a verified client certificate names, nil
	// if it names none.
	Certificate(cert *x509.Certificate) *protocol.Caller
	// Valid reports whether a caller that was let in may stay: not expired and not
	// revoked. It is cheap.
	Valid(c *protocol.Caller) bool
}

// Quota counts what subjects use, over the region. Its methods and those of its
// accounts may be called from any goroutine and never block.
type Quota interface {
	// Account opens a subject's account; each is given back with Release.
	Account(subject string) Account
}

// Account is what one subject may use.
type Account interface {
	Spend(n int) (allowed int, retryAfterMS int64) // takes commands, as many as there are
	Connect() bool                                 // takes a connection; false: no room, nothing taken
	Disconnect()
	Subscribe(n int) bool // takes n selectors; false: no room, nothing taken
	Unsubscribe(n int)
	Release()
}

// unlimited is the account where there is no Quota.
type unlimited struct{}

func (unlimited) Spend(n int) (int, int64) { return n, 0 }
func (unlimited) Connect() bool            { return true }
func (unlimited) Disconnect()              {}
func (unlimited) Subscribe(int) bool       { return true }
func (unlimited) Unsubscribe(int)          {}
func (unlimited) Release()                 {}

// admit finds out who sends the request, and takes one command from what they may
// still ask for. Where it returns no error, r's account must be released.
func (a *API) admit(r *request) *protocol.Error {
	who, err := a.authenticate(r)
	if err != nil {
		return err
	}
	account := Account(unlimited{})
	// Without a guard nobody has a name, and one account would be everybody's.
	if a.cfg.Quota != nil && a.cfg.Guard != nil {
		account = a.cfg.Quota.Account(who.Subject)
	}
	if allowed, ms := account.Spend(1); allowed < 1 {
		account.Release()
		return outOfCommands(ms)
	}
	r.who, r.account = who, account
	return nil
}

func (a *API) authenticate(r *request) (*protocol.Caller, *protocol.Error) {
	if a.cfg.Guard == nil {
		return a.anybody, nil
	}
	who, err := a.identify(r)
	switch {
	case err != nil:
		return nil, err
	case who == nil:
		return nil, unauthorized("a token is needed, as Authorization: Bearer")
	case !a.cfg.Guard.Valid(who):
		return nil, unauthorized("expired or revoked")
	}
	return who, nil
}

// identify returns whom the request names, nil if nobody. A token counts more than a
// certificate: it is what the client chose to send.
func (a *API) identify(r *request) (*protocol.Caller, *protocol.Error) {
	switch sent := r.Header.Values("Authorization"); len(sent) {
	case 0:
	case 1:
		token, ok := protocol.Bearer(sent[0])
		if !ok {
			return nil, unauthorized("Authorization must be Bearer and a token")
		}
		ctx, cancel := context.WithTimeout(r.Context(), a.cfg.AuthTimeout)
		defer cancel()
		return a.cfg.Guard.Token(ctx, token)
	default:
		return nil, protocol.BadRequest("Authorization is sent %d times", len(sent))
	}
	if a.cfg.Certificates == nil {
		return nil, nil
	}
	cert := a.cfg.Certificates(r.Request)
	if cert == nil {
		return nil, nil
	}
	return a.cfg.Guard.Certificate(cert), nil
}

// checkNoToken refuses a token in the URL, where logs and histories would keep it.
func (r *request) checkNoToken() *protocol.Error {
	for name := range r.query {
		if protocol.IsTokenParameter(name) {
			return protocol.BadRequest("tokens are not taken in the URL: send Authorization: Bearer")
		}
	}
	return nil
}

// peerAddress is where a request came from, without port; "" if that can't be told.
func peerAddress(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return peer.Addr().Unmap().WithZone("").String()
}

func unauthorized(why string) *protocol.Error {
	return protocol.NewError(protocol.CodeUnauthorized, "%s", why)
}

func outOfCommands(retryAfterMS int64) *protocol.Error {
	return protocol.RetryLater(protocol.CodeRateLimited, max(1, retryAfterMS), "no more commands for this subject now")
}
