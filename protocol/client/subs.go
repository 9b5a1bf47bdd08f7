package client

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// unsubscribeWait bounds the goodbye of a subscription.
const unsubscribeWait = 5 * time.Second

func (c *Client) addSub(s *Subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.subs = append(slices.Clone(c.subs), s)
	return nil
}

func (c *Client) dropSub(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = slices.DeleteFunc(slices.Clone(c.subs), func(o *Subscription) bool { return o == s })
}

// spawn starts a goroutine that Close waits for, unless the client has ended.
func (c *Client) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.wg.Go(f)
	}
}

func (c *Client) eachSub(f func(*Subscription)) {
	c.mu.Lock()
	subs := c.subs
	c.mu.Unlock()
	for _, s := range subs {
		f(s)
	}
}

// linkAfter waits for a link other than old.
func (c *Client) linkAfter(ctx context.Context, old *link) (*link, error) {
	return c.awaitLink(ctx, func(l *link) bool { return l != nil && l != old })
}

// linkGone waits until old is no longer the client's link.
func (c *Client) linkGone(ctx context.Context, old *link) error {
	_, err := c.awaitLink(ctx, func(l *link) bool { return l != old })
	return err
}

func (c *Client) awaitLink(ctx context.Context, ok func(*link) bool) (*link, error) {
	for {
		c.mu.Lock()
		l, changed, err := c.link, c.changed, c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if ok(l) {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// why returns the client's own end where that is what canceled err.
func (c *Client) why(err error) error {
	if reason := c.reason(); reason != nil {
		return reason
	}
	if err == context.Canceled {
		return ErrClosed
	}
	return err
}

// unsubscribe tells the node. An unsubscribe takes away what other
// subscriptions name as well, so these are made again from their cursors.
func (s *Subscription) unsubscribe() {
	c := s.client
	c.mu.Lock()
	l, others := c.link, c.subs
	c.mu.Unlock()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, unsubscribeWait)
	defer cancel()
	cmd := s.base
	cmd.Op, cmd.IntervalMS = protocol.OpUnsubscribe, 0
	for _, part := range split(cmd, l.hello.Limits.MessageBytes/2) {
		if err := c.do(ctx, part, l, message.acknowledged); err != nil {
			return // the link is gone, and the subscription with it
		}
	}
	for _, o := range others {
		if err := o.fill(ctx, l); err != nil {
			return
		}
	}
}

// split cuts a command whose selectors do not fit into bytes into several.
func split(cmd protocol.Command, bytes int) []protocol.Command {
	rest := cmd
	rest.SKUs, rest.Prefixes, rest.Users = nil, nil, nil
	var parts []protocol.Command
	part, size := rest, 0
	for _, l := range []struct {
		names []string
		list  func(*protocol.Command) *[]string
	}{
		{cmd.SKUs, func(c *protocol.Command) *[]string { return &c.SKUs }},
		{cmd.Prefixes, func(c *protocol.Command) *[]string { return &c.Prefixes }},
		{cmd.Users, func(c *protocol.Command) *[]string { return &c.Users }},
	} {
		for _, name := range l.names {
			// Quotes, a comma, and at worst six bytes for one escaped.
			cost := len(name) + 3
			if strings.ContainsAny(name, `"\`) {
				cost = 6*len(name) + 3
			}
			if size > 0 && size+cost > bytes {
				parts = append(parts, part)
				part, size = rest, 0
				part.All = false
			}
			*l.list(&part) = append(*l.list(&part), name)
			size += cost
		}
	}
	parts = append(parts, part)
	for i := range parts {
		// Locations narrow the SKUs; alone they would pick every SKU there.
		if p := &parts[i]; len(p.SKUs)+len(p.Prefixes) == 0 && len(cmd.SKUs)+len(cmd.Prefixes) > 0 {
			p.Locations = nil
		}
	}
	return parts
}

// matcher is a Selector made for being asked often.
type matcher struct {
	all       bool
	skus      map[string]bool
	prefixes  []string
	locations []string
}

// newMatcher takes a selector; with users and nothing else it matches no item.
func newMatcher(sel *protocol.Selector, users bool) matcher {
	m := matcher{all: sel.Wide(), skus: map[string]bool{}, prefixes: sel.Prefixes, locations: sel.Locations}
	if users && !sel.All && len(sel.Locations) == 0 {
		m.all = false
	}
	for _, sku := range sel.SKUs {
		m.skus[sku] = true
	}
	return m
}

func (m *matcher) item(it *protocol.Item) bool {
	if len(m.locations) > 0 && !slices.Contains(m.locations, it.Location) {
		return false
	}
	if m.all || m.skus[it.SKU] {
		return true
	}
	return slices.ContainsFunc(m.prefixes, func(p string) bool { return strings.HasPrefix(it.SKU, p) })
}
