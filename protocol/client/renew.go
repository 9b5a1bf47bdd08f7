package client

import (
	"context"
	"errors"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// Bounds of the pause after a renewal that came to nothing.
const (
	renewAgainMin = 250 * time.Millisecond
	renewAgainMax = 30 * time.Second
)

// errSameToken: there is no other token yet.
var errSameToken = errors.New("client: Config.Token still returns the earlier token")

// authenticated is the ok object of an auth.
type authenticated struct {
	ExpiresAt protocol.Time `json:"expires_at"`
}

// renew gives the node a new token before the one that it has ends, and at once
// where the node asks for one.
func (l *link) renew() {
	pace := newBackoff(&l.client.cfg)
	have := l.credential
	wait := renewalAfter(have.expires)
	for {
		asked, ok := l.renewalDue(wait)
		if !ok {
			return
		}
		next, err := l.authenticate(have, asked)
		later := retryable(err)
		l.client.renewed(l, err)
		if err == nil {
			have, wait = next, renewalAfter(next.expires)
			pace.Reset()
			continue
		}
		if wait = again(have.expires); wait > 0 {
			wait = max(wait, retryPause(later))
		}
		if l.notRenewed(err, asked) || asked && pause(l.ctx, max(retryPause(later), pace.NextBackOff())) != nil {
			return
		}
	}
}

// renewalDue waits until the node asks for a token, or for wait unless that is zero;
// ok is false where the link ended first.
func (l *link) renewalDue(wait time.Duration) (asked, ok bool) {
	var due <-chan time.Time
	if wait > 0 {
		due = time.After(wait)
	}
	select {
	case <-due:
		return false, true
	case <-l.asked:
		return true, true
	case <-l.ctx.Done():
		return false, false
	}
}

// renewalAfter is 80 % of what is left of a token's life; zero where that is not
// known, or over by our clock: then the node's counts, and it will ask.
func renewalAfter(expires time.Time) time.Duration {
	if expires.IsZero() {
		return 0
	}
	return max(0, time.Until(expires)/5*4)
}

// again is when to try once more; zero as in renewalAfter.
func again(expires time.Time) time.Duration {
	left := renewalAfter(expires)
	if left == 0 {
		return 0
	}
	return min(max(left, renewAgainMin), renewAgainMax)
}

// authenticate sends the node another token than it has, or any where it asked.
func (l *link) authenticate(have credential, asked bool) (credential, error) {
	c := l.client
	token, err := c.token(l.ctx)
	if err != nil {
		return have, err
	}
	next := newCredential(token)
	if token == "" || next.sum == have.sum && !asked {
		return have, errSameToken
	}
	ctx, cancel := context.WithTimeout(l.ctx, c.cfg.DialTimeout)
	defer cancel()
	var ok authenticated
	err = c.do(ctx, protocol.Command{Op: protocol.OpAuth, Token: token}, l, func(msg message) error {
		_, err := decodeReply(msg, &ok)
		return err
	})
	if err != nil {
		return have, err
	}
	if ok.ExpiresAt != 0 {
		next.expires = ok.ExpiresAt.Std()
	}
	c.trusted()
	c.cfg.Logger.Debug("token renewed", "endpoint", l.endpoint, "expires_at", next.expires)
	return next, nil
}

// notRenewed reports whether err ends the client: the earlier token is still good
// unless the node has asked for another, and what it can't tell yet is no refusal.
func (l *link) notRenewed(err error, asked bool) bool {
	if errors.Is(err, errLinkLost) || l.ctx.Err() != nil {
		return false
	}
	if err != errSameToken || asked {
		l.client.cfg.Logger.Warn("token not renewed", "endpoint", l.endpoint, "error", err)
	}
	if !asked || retryable(err) != nil {
		return false
	}
	if err = l.client.counted(err); isUnauthorized(err) && isPermanent(err) {
		l.client.stop(err)
		return true
	}
	return false
}

// retryable returns the node's error where that asks for another try; otherwise nil.
func retryable(err error) *protocol.Error {
	var refused *protocol.Error
	if errors.As(err, &refused) && refused.Retryable {
		return refused
	}
	return nil
}

// renewed wakes the calls that wait for a renewal, whatever came of it. Where the node
// could not tell they go on waiting, and have it tried again.
func (c *Client) renewed(l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	later := retryable(err)
	if later == nil {
		l.renewals++
	}
	if later != nil || err == nil || isUnauthorized(err) {
		l.undecided = later
	}
	select {
	case <-l.asked: // by a call that was sent before
	default:
	}
	c.signal()
}

// wantsToken reports whether a call was refused for want of a token that may be had.
// What the caller sends itself as auth is its own.
func (c *Client) wantsToken(p *call, e *protocol.Error) bool {
	return c.cfg.Token != nil && e.Code == protocol.CodeUnauthorized && p.cmd.Op != protocol.OpAuth
}

// reauthorize has the link that refused a call renew its token, unless it did since
// the call was sent, and waits for that or for the link's end. decided is false where
// the link ended before its node could tell whether the token is good.
func (c *Client) reauthorize(ctx context.Context, p *call) (decided bool, err error) {
	for {
		c.mu.Lock()
		changed, err, undecided := c.changed, c.err, p.over.undecided
		lost := c.link != p.over || p.over.ctx.Err() != nil
		over := lost || p.over.renewals != p.renewals
		if !over {
			nudge(p.over.asked)
		}
		c.mu.Unlock()
		switch {
		case err != nil || over:
			return !lost || undecided == nil, err
		case undecided != nil && c.cfg.FailFast:
			return false, undecided
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
