package edge_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// guard is a Guard that knows tokens by name.
type guard struct {
	mu      sync.Mutex
	callers map[string]*protocol.Caller // by token, or a certificate's common name
	gone    map[string]bool             // subjects that may not stay
	hold    chan struct{}               // checks wait until it is closed; nil: they don't
	waiting int
}

func newGuard() *guard {
	return &guard{callers: make(map[string]*protocol.Caller), gone: make(map[string]bool)}
}

// knows has a token name a subject with these grants, in JSON.
func (g *guard) knows(t testing.TB, token, subject, grants string) {
	t.Helper()
	var list []protocol.Grant
	if err := json.Unmarshal([]byte(grants), &list); err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.callers[token] = &protocol.Caller{Subject: subject, Access: protocol.NewAccess("eu", list)}
}

// expires has a token's caller stay until then.
func (g *guard) expires(token string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.callers[token].ExpiresAt = at
}

// holds has checks wait until release is called.
func (g *guard) holds(t testing.TB) (release func()) {
	hold := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = hold
	release = sync.OnceFunc(func() {
		g.mu.Lock()
		g.hold = nil
		g.mu.Unlock()
		close(hold)
	})
	t.Cleanup(release)
	return release
}

// held is how many checks wait.
func (g *guard) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

func (g *guard) revoke(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone[subject] = true
}

func (g *guard) Token(ctx context.Context, token string) (*protocol.Caller, *protocol.Error) {
	if err := g.wait(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	caller := g.callers[token]
	if caller == nil || g.gone[caller.Subject] {
		return nil, protocol.NewError(protocol.CodeUnauthorized, "the signature is bad")
	}
	return caller, nil
}

func (g *guard) wait(ctx context.Context) *protocol.Error {
	g.mu.Lock()
	hold := g.hold
	if hold == nil {
		g.mu.Unlock()
		return nil
	}
	g.waiting++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting--
	}()
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return protocol.NewError(protocol.CodeUnavailable, "no keys yet")
	}
}

func (g *guard) Certificate(cert *x509.Certificate) *protocol.Caller {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.callers[cert.Subject.CommonName]
}

func (g *guard) Valid(c *protocol.Caller) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.gone[c.Subject]
}

// quota is a Quota that counts, and holds the edge to giving back what it took.
type quota struct {
	testing.TB

	mu   sync.Mutex
	most usage // of a subject; 0: no limit
	used map[string]*usage
}

type usage struct{ accounts, connections, selectors, commands int }

func (q *quota) limit(most usage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
}

func newQuota(t testing.TB) *quota { return &quota{TB: t, used: make(map[string]*usage)} }

func (q *quota) Account(subject string) edge.Account {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used[subject] == nil {
		q.used[subject] = &usage{}
	}
	q.used[subject].accounts++
	return &account{quota: q, all: q.used[subject]}
}

// of is what a subject uses now, and has spent.
func (q *quota) of(subject string) usage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if u := q.used[subject]; u != nil {
		return *u
	}
	return usage{}
}

// total is what all use now.
func (q *quota) total() (sum usage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range q.used {
		sum.accounts += u.accounts
		sum.connections += u.connections
		sum.selectors += u.selectors
	}
	return sum
}

// account is one that was asked for: a connection's.
type account struct {
	quota    *quota
	all      *usage
	mine     usage
	released bool
}

// change is called for everything that is done with an account.
func (a *account) change(fn func() bool) bool {
	a.quota.mu.Lock()
	defer a.quota.mu.Unlock()
	if a.released {
		a.quota.Error("an account is used after its release")
	}
	ok := fn()
	if a.mine.connections < 0 || a.mine.connections > 1 || a.mine.selectors < 0 {
		a.quota.Errorf("a connection uses %+v", a.mine)
	}
	return ok
}

func (a *account) Spend(n int) (allowed int, retryAfterMS int64) {
	a.change(func() bool {
		allowed = n
		if a.quota.most.commands > 0 {
			allowed = min(n, a.quota.most.commands-a.all.commands)
		}
		a.all.commands += allowed
		return true
	})
	return allowed, 70
}

func (a *account) Connect() bool {
	return a.change(func() bool {
		if a.quota.most.connections > 0 && a.all.connections >= a.quota.most.connections {
			return false
		}
		a.mine.connections++
		a.all.connections++
		return true
	})
}

func (a *account) Disconnect() {
	a.change(func() bool {
		a.mine.connections--
		a.all.connections--
		return true
	})
}

func (a *account) Subscribe(n int) bool {
	return a.change(func() bool {
		if n <= 0 {
			a.quota.Errorf("%d selectors taken", n)
		}
		if a.quota.most.selectors > 0 && a.all.selectors+n > a.quota.most.selectors {
			return false
		}
		a.mine.selectors += n
		a.all.selectors += n
		return true
	})
}

func (a *account) Unsubscribe(n int) {
	a.change(func() bool {
		a.mine.selectors -= n
		a.all.selectors -= n
		return true
	})
}

func (a *account) Release() {
	a.change(func() bool {
		if a.mine.connections != 0 || a.mine.selectors != 0 {
			a.quota.Errorf("released while it uses %+v", a.mine)
		}
		a.released = true
		a.all.accounts--
		return true
	})
}

// guarded is a fixture that asks who its clients are.
type guarded struct {
	*fixture
	guard *guard
	quota *quota
}

// Tokens that every guarded fixture knows.
const (
	everything = `[{"do":["watch","history","adjust","count","reserve","sell","move","configure","admin"]}]`
	onlyTees   = `[{"do":["watch","adjust","count","reserve","sell","move","configure","history"],"skus":["tee-*"],"locations":["shop"]}]`
)

func startGuarded(t testing.TB, tune ...func(*edge.Config)) *guarded {
	t.Helper()
	g, q := newGuard(), newQuota(t)
	g.knows(t, "all", "boss", everything)
	g.knows(t, "tees", "clerk", onlyTees)
	g.knows(t, "nothing", "guest", `[]`)
	f := start(t, append([]func(*edge.Config){func(c *edge.Config) { c.Guard, c.Quota = g, q }}, tune...)...)
	t.Cleanup(func() {
		if err := f.edge.Close(); err != nil {
			t.Error(err)
		}
		if left := q.total(); left != (usage{}) {
			t.Errorf("not given back: %+v", left)
		}
	})
	return &guarded{f, g, q}
}

// as connects with a token and takes the hello.
func (f *guarded) as(token string) *peer {
	f.Helper()
	p := f.tcp()
	p.raw(handshake(f.addr, "Authorization: Bearer "+token))
	p.upgraded()
	if m := p.next(); m.Op != "hello" {
		f.Fatalf("got %s, want hello", m.raw)
	}
	return p
}

// authAs shows a token in a session.
func (p *peer) authAs(token string) {
	p.Helper()
	p.ok(`{"op":"auth","token":"` + token + `"}`)
}

// sorted are the items of pushes in order.
func sorted(pushes []message) []string {
	list := items(pushes)
	slices.Sort(list)
	return list
}
