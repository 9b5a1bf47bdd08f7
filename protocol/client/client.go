package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/stockmesh/stockmesh/protocol"
)

// steady is how long a connection must have lasted for the next one to be tried
// without a pause.
const steady = 250 * time.Millisecond

// Client is a connection to a mesh that mends itself. Its methods may be called
// from many goroutines.
type Client struct {
	cfg       Config
	endpoints *endpoints
	http      *http.Client
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	backoff   *backoff.ExponentialBackOff // the supervisor's alone
	lastID    atomic.Uint64
	connects  atomic.Int64
	refusals  atomic.Int32 // tokens refused in a row

	mu      sync.Mutex
	queue   []*call         // to be sent, oldest first
	link    *link           // where the queue goes; nil while there is none
	changed chan struct{}   // closed and replaced when link or err changes
	subs    []*Subscription // replaced, never changed in place
	err     error           // why the client ended
}

// Dial connects to the first endpoint that answers and keeps the client
// connected until Close. See Config.Wait for how long it tries; ctx bounds only
// Dial itself.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	list, err := newEndpoints(cfg.Endpoints)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := newClient(cfg, list)
	l, err := c.firstLink(ctx)
	if err != nil {
		c.cancel()
		c.http.CloseIdleConnections()
		return nil, err
	}
	c.attach(l)
	c.wg.Go(func() { c.supervise(l) })
	return c, nil
}

func newClient(cfg Config, list *endpoints) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = cfg.TLS
	c := &Client{
		cfg:       cfg,
		endpoints: list,
		http:      &http.Client{Transport: transport, CheckRedirect: keepSecret},
		backoff:   newBackoff(&cfg),
		changed:   make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// newBackoff pauses between nothing and twice the interval ("full jitter").
func newBackoff(cfg *Config) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     cfg.BackoffMin,
		RandomizationFactor: 1,
		Multiplier:          2,
		MaxInterval:         cfg.BackoffMax,
	}
}

// Close ends all calls and subscriptions with ErrClosed and waits for the
// client's goroutines. Closing twice is fine.
func (c *Client) Close() error {
	c.stop(ErrClosed)
	c.wg.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// Endpoint returns where the client is connected to, "" while it is not.
func (c *Client) Endpoint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return ""
	}
	return c.link.endpoint
}

// Hello returns what the connected node said first; zero while there is none.
func (c *Client) Hello() protocol.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return protocol.Hello{}
	}
	return c.link.hello
}

// Reconnects returns how often the client had to connect again.
func (c *Client) Reconnects() int { return int(max(0, c.connects.Load()-1)) }

// stop ends the client with err; the first reason stays.
func (c *Client) stop(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	left := c.queue
	c.queue = nil
	c.signal()
	c.mu.Unlock()
	for _, p := range left {
		p.finish(message{}, err)
	}
	c.cancel()
}

// signal tells those who wait that link or err changed. Called with mu held.
func (c *Client) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// supervise keeps a link under the client until it ends. It owns the links.
func (c *Client) supervise(l *link) {
	for {
		next, err := c.follow(l)
		if err != nil {
			c.stop(err)
			l.close()
			return
		}
		c.attach(next)
		if old := l; !old.hasEnded() {
			c.wg.Go(func() { c.retire(old) })
		}
		l = next
	}
}

// attach makes l the link that the queue goes to and starts it.
func (c *Client) attach(l *link) {
	c.connects.Add(1)
	c.endpoints.learn(l.endpoint, l.hello.Endpoints)
	c.cfg.Logger.Info("connected", "endpoint", l.endpoint, "node", l.hello.Node, "region", l.hello.Region)
	c.mu.Lock()
	c.link = l
	c.signal()
	c.mu.Unlock()
	c.wg.Go(l.run)
}

// follow waits until l ends or asks to be left, and returns the link after it.
func (c *Client) follow(l *link) (*link, error) {
	select {
	case <-c.ctx.Done():
		return nil, ErrClosed
	case <-l.ended:
		return c.reconnect(l)
	case <-l.goaway:
	}
	if next := c.elsewhere(l); next != nil {
		return next, nil
	}
	select {
	case <-c.ctx.Done():
		return nil, ErrClosed
	case <-l.ended:
		return c.reconnect(l)
	}
}

// elsewhere connects to another node while l still works; nil where l ended
// first or there is no other.
func (c *Client) elsewhere(l *link) *link {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	stop := context.AfterFunc(l.ctx, cancel)
	defer stop()
	for {
		others := c.endpoints.others(l.endpoint)
		for _, endpoint := range others {
			next, err := c.dialOne(ctx, endpoint)
			if err == nil && !next.sameNode(l) {
				return next
			}
			if err == nil {
				next.close()
			}
		}
		if len(others) == 0 || pause(ctx, c.backoff.NextBackOff()) != nil {
			return nil
		}
	}
}

// retire lets l answer what it was sent, for as long as its node allows, and
// closes it. What stays unanswered is sent again on the new link.
func (c *Client) retire(l *link) {
	timer := time.NewTimer(l.deadline())
	defer timer.Stop()
	for !c.idle(l) {
		select {
		case <-l.answered:
		case <-timer.C:
			l.close()
			return
		case <-l.ended:
			return
		case <-c.ctx.Done():
			l.close()
			return
		}
	}
	l.close()
}

func (c *Client) idle(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(l.pending) == 0
}

// reconnect finds the link after one that ended, as its close code asks.
func (c *Client) reconnect(l *link) (*link, error) {
	avoid := ""
	least := time.Duration(0)
	switch endingOf(l.err) {
	case endForGood:
		err := c.closedForGood(l)
		if isPermanent(err) {
			return nil, err
		}
		least = max(pauseOf(err), c.backoff.NextBackOff())
	case endPause:
		least = c.cfg.PauseMin
	case endElsewhere:
		avoid = l.endpoint
	}
	if time.Since(l.since) >= steady {
		c.backoff.Reset()
	} else if avoid == "" || len(c.endpoints.others(avoid)) == 0 {
		least = max(least, c.backoff.NextBackOff())
	}
	if pause(c.ctx, least) != nil {
		return nil, ErrClosed
	}
	return c.connect(avoid)
}

// closedForGood is what a close of 40xx comes to: the node may only want another
// token, or time to find out about the one it was given.
func (c *Client) closedForGood(l *link) error {
	if time.Since(l.since) >= provenAfter {
		c.trusted()
	}
	c.mu.Lock()
	undecided := l.undecided
	c.mu.Unlock()
	if err := closeError(l.endpoint, l.err); undecided != nil && isUnauthorized(err) {
		return &busyError{l.endpoint, protocol.CloseUnauthorized, retryPause(undecided), undecided}
	}
	return c.counted(closeError(l.endpoint, l.err))
}

// connect tries all endpoints until one answers, with growing pauses.
func (c *Client) connect(avoid string) (*link, error) {
	for {
		l, after, err := c.tryAll(c.ctx, c.endpoints.shuffled(avoid))
		if err == nil {
			return l, nil
		}
		if isPermanent(err) {
			return nil, err
		}
		c.cfg.Logger.Debug("no node reached", "error", err)
		if pause(c.ctx, max(after, c.backoff.NextBackOff())) != nil {
			return nil, ErrClosed
		}
	}
}

func (c *Client) firstLink(ctx context.Context) (*link, error) {
	for {
		l, after, err := c.tryAll(ctx, c.endpoints.inOrder())
		if err == nil || isPermanent(err) || !c.cfg.Wait {
			return l, err
		}
		if wait := pause(ctx, max(after, c.backoff.NextBackOff())); wait != nil {
			return nil, fmt.Errorf("%w (%w)", err, wait)
		}
	}
}

// tryAll dials the endpoints in turn, unless it is for the token that one fails.
// after is the longest pause that a node asked for.
func (c *Client) tryAll(ctx context.Context, list []string) (l *link, after time.Duration, err error) {
	var failures []error
	for _, endpoint := range list {
		l, err := c.dialOne(ctx, endpoint)
		if isUnauthorized(err) && !isBusy(err) || errors.Is(err, ErrNoToken) {
			return nil, 0, c.counted(err)
		}
		if err == nil || isPermanent(err) {
			return l, 0, err
		}
		after = max(after, pauseOf(err))
		failures = append(failures, err)
	}
	return nil, after, fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(failures...))
}

// pause waits for d unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
