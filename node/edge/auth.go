package edge

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// checksMax bounds the tokens that are being checked: each has a goroutine, as its
// check may wait for keys.
const checksMax = 2048

// check is a token that is being checked.
type check struct {
	cancel context.CancelFunc
	call   *protocol.Call // the auth command; nil: the token came with the handshake
	answer []byte         // to the handshake, where that is good
	rest   []protocol.Raw // commands of the same message, which wait
}

// startCheck has a token checked by the guard; false: too many are.
func (l *loop) startCheck(c *conn, k *check, token string) bool {
	e := l.edge
	if e.checks.Add(1) > checksMax {
		e.checks.Add(-1)
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.config.HandshakeTimeout)
	k.cancel = cancel
	c.who.check = k
	l.interest(c)
	name := c.token()
	e.shaking.Go(func() {
		caller, err := l.config.Guard.Token(ctx, token)
		cancel()
		e.checks.Add(-1)
		l.inbox.do(func(l *loop) { l.checked(name, k, caller, err) })
	})
	return true
}

// checked goes on with a connection whose token was checked, if it is still there.
func (l *loop) checked(name uint64, k *check, caller *protocol.Caller, err *protocol.Error) {
	c := l.conn(name)
	if c == nil || c.who == nil || c.who.check != k {
		return
	}
	c.who.check = nil
	if err == nil && caller == nil {
		err = protocol.NewError(protocol.CodeUnauthorized, "the token names nobody")
	}
	if k.call == nil {
		l.welcome(c, k.answer, caller, err)
	} else {
		l.authenticated(c, k.call, caller, err)
	}
	l.resume(c, k.rest)
}

// resume does what a connection has sent while its token was checked.
func (l *loop) resume(c *conn, rest []protocol.Raw) {
	if l.slots[c.slot] != c {
		return
	}
	c.heardAt, c.since = l.moment(), l.moment() // nobody listened
	l.interest(c)
	if c.state == stateOpen {
		if rest = l.commands(c, rest); len(rest) > 0 {
			c.who.check.rest = rest
		}
	}
	if c.state == stateOpen && !c.checking() {
		l.frames(c, nil)
	}
}

// arrive finds out who comes with a good handshake, which is answered then. A client
// that names nobody may do so in its first command.
func (l *loop) arrive(c *conn, answer []byte, authorization []string) {
	guard := l.config.Guard
	if guard == nil {
		l.begin(c, answer)
		return
	}
	c.who = &client{since: l.moment()}
	if len(authorization) > 1 {
		l.turnAway(c, "token", protocol.BadRequest("several Authorization headers"))
		return
	}
	if len(authorization) == 1 {
		l.arriveWith(c, answer, authorization[0])
		return
	}
	var caller *protocol.Caller
	if cert := c.certificate(); cert != nil {
		caller = guard.Certificate(cert)
	}
	if caller == nil || !guard.Valid(caller) {
		l.begin(c, answer)
		return
	}
	l.welcome(c, answer, caller, nil)
}

// arriveWith takes what an Authorization header says.
func (l *loop) arriveWith(c *conn, answer []byte, header string) {
	token, ok := protocol.Bearer(header)
	if !ok {
		l.turnAway(c, "token", protocol.NewError(protocol.CodeUnauthorized, "the Authorization header must be: Bearer, and a token"))
		return
	}
	c.state, c.since = stateChecking, l.moment()
	if !l.startCheck(c, &check{answer: answer}, token) {
		l.turnAway(c, "checks", errChecks())
	}
}

func errChecks() *protocol.Error {
	return protocol.RetryLater(protocol.CodeOverloaded, 1000, "too many tokens are being checked")
}

// welcome answers a handshake by what was found out about its token.
func (l *loop) welcome(c *conn, answer []byte, caller *protocol.Caller, err *protocol.Error) {
	if err != nil {
		l.turnAway(c, "token", err)
		return
	}
	if l.edge.draining.Load() { // since it came
		l.turnAway(c, "handshake", protocol.RetryLater(protocol.CodeOverloaded, 1000, "the node is draining"))
		return
	}
	if err := l.admitCaller(c, caller); err != nil {
		l.turnAway(c, "quota", err)
		return
	}
	l.begin(c, answer)
}

// begin answers a handshake and opens the session.
func (l *loop) begin(c *conn, answer []byte) {
	c.out = append(l.outs.get(c.out), answer...)
	l.open(c)
}

// turnAway answers a handshake with an error.
func (l *loop) turnAway(c *conn, reason string, err *protocol.Error) {
	l.edge.metrics.rejected.WithLabelValues(reason).Inc()
	status := err.Code.Status()
	if (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) && err.RetryAfterMS == 0 {
		waits := *err // the contract promises a Retry-After
		waits.RetryAfterMS = 1000
		err = &waits
	}
	c.keep(nil)
	c.out = appendProblem(l.outs.get(c.out), status, err)
	l.finish(c)
}

// auth starts the check of a command's token. What its connection sends after it waits
// for the answer, so that a client need not.
func (l *loop) auth(c *conn, call *protocol.Call) {
	token := call.Command.Token
	call.Command.Token = "" // not kept longer than needed
	switch {
	case l.config.Guard == nil:
		call.Err = protocol.NewError(protocol.CodeUnauthorized, "this node was started without keys to check tokens with")
	case !l.startCheck(c, &check{call: call}, token):
		call.Err = errChecks()
	default:
		return
	}
	l.replyNow(c, call)
}

// authenticated answers an auth command. A good token takes the place of the one
// before, a bad one changes nothing.
func (l *loop) authenticated(c *conn, call *protocol.Call, caller *protocol.Caller, err *protocol.Error) {
	full := false
	if err == nil {
		err = l.admitCaller(c, caller)
		full = err != nil
	}
	if err != nil {
		call.Err = err
		l.refused(c, call)
	} else {
		call.Result = protocol.Result{Kind: protocol.KindAuth, Subject: caller.Subject, ExpiresAt: expiry(caller)}
	}
	l.replyNow(c, call)
	if full {
		l.close(c, protocol.CloseTooManyConnections, "too many connections of this user")
	}
}

// expiry is when a caller must have shown a new token.
func expiry(caller *protocol.Caller) protocol.Time {
	if caller.ExpiresAt.IsZero() {
		return protocol.TimeOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
	}
	return protocol.TimeOf(caller.ExpiresAt)
}

// admitCaller lets a connection speak for a caller, from now on, if the limits of its
// subject allow that; otherwise nothing has changed.
func (l *loop) admitCaller(c *conn, caller *protocol.Caller) *protocol.Error {
	who := c.who
	if q := l.config.Quota; q != nil && (who.account == nil || who.caller.Subject != caller.Subject) {
		account := q.Account(caller.Subject)
		if err := takeAccount(account, c.selectors()); err != nil {
			account.Release()
			return err
		}
		l.leaveAccount(c)
		who.account = account
	}
	if before := who.caller; before != nil {
		if before.Subject != caller.Subject {
			l.hub.forgetMade(c) // whose ends are no news for somebody else
		}
		if before.Access.Same(caller.Access) {
			renewed := *caller
			renewed.Access, caller = before.Access, &renewed // so that nothing is entered anew
		}
	}
	who.caller = caller
	l.hub.regrant(c)
	return nil
}

// takeAccount takes all of a connection or nothing.
func takeAccount(a Account, selectors int) *protocol.Error {
	if !a.Connect() {
		return protocol.RetryLater(protocol.CodeRateLimited, 1000, "too many connections of this user")
	}
	if selectors > 0 && !a.Subscribe(selectors) {
		a.Disconnect()
		return protocol.RetryLater(protocol.CodeRateLimited, 1000, "too many selectors of this user")
	}
	return nil
}

// leaveAccount gives back what a connection has taken of its subject's.
func (l *loop) leaveAccount(c *conn) {
	a := c.who.account
	if a == nil {
		return
	}
	c.who.account = nil
	if n := c.selectors(); n > 0 {
		a.Unsubscribe(n)
	}
	a.Disconnect()
	a.Release()
}

// part ends what a connection has to do with its caller. It may be called again.
func (l *loop) part(c *conn) {
	if c.who == nil {
		return
	}
	if k := c.who.check; k != nil {
		k.cancel()
		c.who.check = nil
		l.interest(c)
	}
	l.leaveAccount(c)
}

// outstays closes a session whose caller is not known in time or may not stay.
func (l *loop) outstays(c *conn) bool {
	guard := l.config.Guard
	switch {
	case guard == nil:
		return false
	case !c.known():
		if l.ago(c.who.since) < l.config.AuthTimeout.Milliseconds() {
			return false
		}
		l.close(c, protocol.CloseUnauthorized, "no good token within "+l.config.AuthTimeout.String())
	case guard.Valid(c.who.caller):
		return false
	default:
		l.close(c, protocol.CloseUnauthorized, "the token has expired or was revoked")
	}
	return true
}

// Recheck has every session closed, with 4001, whose caller may not stay: to be called
// when something was revoked. Sessions whose token expires end without it, within two
// seconds. It returns at once.
func (e *Edge) Recheck() {
	if e.config.Guard == nil {
		return
	}
	for _, l := range e.loops {
		l.inbox.do(func(l *loop) {
			for _, c := range l.slots {
				if c != nil && c.state == stateOpen {
					l.outstays(c)
				}
			}
		})
	}
}

// tokenInURL reports whether a request's target has a query parameter for a token.
func tokenInURL(target []byte) bool {
	_, query, _ := bytes.Cut(target, []byte("?"))
	for pair := range bytes.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' || r == '#' }) {
		name, _, _ := strings.Cut(string(pair), "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if protocol.IsTokenParameter(name) {
			return true
		}
	}
	return false
}

var errTokenInURL = reject(http.StatusBadRequest, "a token in the URL is not taken: send it in the Authorization header or by the auth command")
