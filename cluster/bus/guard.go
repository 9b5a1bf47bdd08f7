package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// guardEvery is between two pings of a mirror's guard, each one followed by a look.
	guardEvery = time.Second
	// An answer older than this says that the region can't be reached, and then
	// nothing is mended.
	answerFresh = 3 * time.Second
	// A mirror that is behind and has not moved for this long stands still.
	stillFor = 3 * time.Second
	// A mirror whose stream has had no leader for this long will not get one.
	leaderlessFor = 10 * time.Second
	// Wait after a mending, doubled each time it did not help.
	mendPause    = 5 * time.Second
	mendPauseMax = time.Minute
	// How often a mirror is given another leader before it is made anew.
	stepDownsMax = 2
	// For how many looks in a row a mirror must differ from its origin's life.
	strangeLooks = 2
	// The origin's state is asked of its leader no more often.
	originFresh = 500 * time.Millisecond
	// Pings answered at one time at most.
	answersMax = 64

	subjectPing = "ping"
	subjectPong = "pong."
)

// ping asks another region how its bucket is.
type ping struct {
	Server string `json:"server"` // id of the one that asks
	N      uint64 `json:"n"`      // of the ping
	Bucket string `json:"bucket"`
	Key    string `json:"key"` // of the incarnation row, or ""
}

// pong is the answer, from each server of that region which can tell.
type pong struct {
	N           uint64    `json:"n"`
	Bucket      string    `json:"bucket"`
	Last        uint64    `json:"last"` // revision
	Incarnation string    `json:"incarnation"`
	At          time.Time `json:"-"`
}

// answerer answers the pings of other regions. It asks the bucket's leader once for
// all that come at about the same time.
type answerer struct {
	bus *Bus

	mu    sync.Mutex
	state map[string]*originState // by bucket
	open  int                     // pings that are being answered
}

// later answers a ping without holding up the messages behind it. What is too much is
// dropped: the next ping comes soon.
func (a *answerer) later(m *mesh, region string, p ping) {
	m.mu.Lock() // close counts the tasks under it
	defer m.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.ctx.Err() != nil || a.open == answersMax {
		return
	}
	a.open++
	m.tasks.Go(func() {
		a.to(m, region, p)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open--
	})
}

// originsMax bounds what other regions can make this one remember.
const originsMax = 64

type originState struct {
	mu   sync.Mutex
	at   time.Time
	pong pong
	err  error
}

// answerPings subscribes to pings and to the answers to our own.
func (m *mesh) answerPings() error {
	m.answer.state = make(map[string]*originState)
	_, err := m.bus.Receive(subjectPing, func(from, _ string, data []byte) {
		var p ping
		if json.Unmarshal(data, &p) != nil || !slices.Contains(m.config.buckets(), p.Bucket) ||
			p.Key != "" && !keyValid(p.Key) || nameValid(p.Server) != nil {
			return
		}
		m.answer.later(m, from, p)
	})
	if err != nil {
		return err
	}
	_, err = m.bus.Receive(subjectPong+m.bus.srv.ID(), func(from, _ string, data []byte) {
		var p pong
		if json.Unmarshal(data, &p) != nil || nameValid(p.Bucket) != nil {
			return
		}
		p.At = time.Now()
		m.mu.Lock()
		defer m.mu.Unlock()
		if peer := m.peers[from]; peer != nil && (peer.states[p.Bucket] != nil || len(peer.states) < originsMax) {
			peer.states[p.Bucket] = &p
		}
	})
	return err
}

func (a *answerer) to(m *mesh, region string, p ping) {
	a.mu.Lock()
	name := p.Bucket + " " + p.Key // another key is another question
	s := a.state[name]
	if s == nil && len(a.state) < originsMax {
		s = &originState{}
		a.state[name] = s
	}
	a.mu.Unlock()
	if s == nil {
		return // that many are not asked for in earnest
	}
	answer, err := s.get(m.ctx, a.bus, p)
	if err != nil {
		return // another server may know
	}
	answer.N = p.N
	data, err := json.Marshal(answer)
	if err == nil && m.linked(region) {
		_ = m.send(region, subjectPong+p.Server, data) // at most once
	}
}

// get returns the bucket's state as it is now, or was a moment ago.
func (s *originState) get(ctx context.Context, b *Bus, p ping) (pong, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) < originFresh {
		return s.pong, s.err
	}
	s.pong, s.err = b.origin(ctx, "KV_"+p.Bucket, p)
	s.at = time.Now()
	return s.pong, s.err
}

func (b *Bus) origin(ctx context.Context, stream string, p ping) (pong, error) {
	// The row first: were it last, the row of a new life could come with the end of
	// the one before.
	life, err := b.incarnation(ctx, stream, p.Bucket, p.Key)
	if err != nil {
		return pong{}, err
	}
	info, err := b.streamInfo(ctx, stream)
	if err != nil {
		return pong{}, err
	}
	return pong{Bucket: p.Bucket, Last: info.State.LastSeq, Incarnation: life}, nil
}

// incarnation reads the row that tells one life of a bucket from the next; "" when it
// has none.
func (b *Bus) incarnation(ctx context.Context, stream, bucket, key string) (string, error) {
	if key == "" {
		return "", nil
	}
	m, err := b.leaderGet(ctx, stream, []byte(`{"last_by_subj":"$KV.`+bucket+`.`+key+`"}`))
	switch {
	case errors.Is(err, errNoMessage):
		return "", nil
	case err != nil:
		return "", err
	}
	if h, err := nats.DecodeHeadersMsg(m.Header); err == nil && isDeleteMark(h) {
		return "", nil
	}
	return string(m.Data), nil
}

// guard is what one server knows of a mirror that it watches over.
type guard struct {
	*Mirror
	n uint64 // of the last ping

	last     uint64    // the mirror's revision at the last look
	moved    time.Time // when that changed, or the region was out of reach
	ended    time.Time // when the stream lost its leader; zero while it has one
	before   uint64    // the mirror's revision when ping n was sent
	strange  int       // looks in a row at which it was of another life
	downs    int       // leaders taken from it since it last moved
	wait     time.Duration
	notUntil time.Time // after the last mending
}

// guard pings the region and looks after the mirror until ctx ends.
func (m *Mirror) guard(ctx context.Context) {
	g := &guard{Mirror: m, moved: time.Now(), wait: mendPause}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		if m.bus.mesh.linked(m.region) {
			err := g.look(ctx)
			if ctx.Err() != nil {
				return
			}
			m.mu.Lock()
			m.state.Err = err
			m.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look judges the mirror by the answer to the ping before, and pings again.
func (g *guard) look(ctx context.Context) error {
	defer g.ping()
	answer := g.bus.mesh.lastPong(g.region, g.bucket)
	reached := answer != nil && time.Since(answer.At) < answerFresh
	now := time.Now()
	if !reached {
		g.moved, g.strange = now, 0
	}
	info, err := g.bus.streamInfo(ctx, g.stream)
	if err != nil {
		return g.unled(ctx, err, reached)
	}
	g.ended = time.Time{}
	if info.State.LastSeq != g.last {
		g.last, g.moved = info.State.LastSeq, now
		if g.strange == 0 && now.After(g.notUntil) {
			g.downs, g.wait = 0, mendPause
		}
	}
	if !reached {
		return nil
	}
	g.note(answer)
	if answer.N == g.n { // asked after the mirror was looked at the last time
		if err := g.compare(ctx, answer); err != nil {
			return err
		}
	}
	g.before = g.last
	return g.mend(ctx, info, answer)
}

func (g *guard) note(answer *pong) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state.Behind = 0
	if answer.Last > g.last {
		g.state.Behind = answer.Last - g.last
	}
}

// compare counts the looks at which the mirror is not one of the origin as it is: it
// has more than the origin had later, or all, and the row of another life.
func (g *guard) compare(ctx context.Context, answer *pong) error {
	strange := answer.Last < g.before
	if !strange && g.key != "" && answer.Incarnation != "" && answer.Last <= g.last {
		life, err := g.bus.incarnation(ctx, g.stream, g.bucket, g.key)
		if err != nil {
			return err
		}
		strange = life != answer.Incarnation
	}
	if !strange {
		g.strange = 0
		return nil
	}
	g.strange++
	return nil
}

// mend does what is to be done, if this server leads the mirror's stream.
func (g *guard) mend(ctx context.Context, info *jetstream.StreamInfo, answer *pong) error {
	now := time.Now()
	if now.Before(g.notUntil) || !g.bus.leads(g.stream) {
		return nil
	}
	switch {
	case g.strange >= strangeLooks:
		return g.rebuild(ctx, "its origin was made anew")
	case answer.Last <= g.last || now.Sub(g.moved) < stillFor:
		return nil
	case g.bus.Clustered() && info.Config.Replicas > 1 && g.downs < stepDownsMax:
		return g.otherLeader(ctx)
	}
	return g.rebuild(ctx, "it stands still")
}

// unled is called when nobody can tell how the mirror is.
func (g *guard) unled(ctx context.Context, err error, reached bool) error {
	if errors.Is(err, ErrMissing) {
		if _, err := g.open(ctx); err != nil { // a rebuild that was broken off
			return err
		}
		return nil
	}
	now := time.Now()
	if g.ended.IsZero() || !reached || g.bus.metaHealth() != nil {
		g.ended = now
	}
	if now.Sub(g.ended) < leaderlessFor || now.Before(g.notUntil) || !g.bus.Clustered() || !g.bus.srv.JetStreamIsLeader() {
		return err
	}
	return g.rebuild(ctx, "its stream has no leader")
}

// otherLeader makes another server set the mirror up again.
func (g *guard) otherLeader(ctx context.Context) error {
	g.downs++
	g.mended("stepped down")
	if err := g.bus.order(ctx, g.bus.bulk, stepDownStream+g.stream, struct{}{}); err != nil {
		g.downs = stepDownsMax // no leader to be had: make it anew next time
		return fmt.Errorf("bus: mirror %s: step down: %w", g.stream, err)
	}
	return nil
}

// rebuild makes the mirror anew: all rows come again.
func (g *guard) rebuild(ctx context.Context, why string) error {
	g.mended(why)
	g.strange, g.downs, g.last, g.before = 0, 0, 0, 0
	if err := g.bus.deleteStream(ctx, g.stream); err != nil {
		return fmt.Errorf("bus: mirror %s: rebuild: %w", g.stream, err)
	}
	if _, err := g.open(ctx); err != nil {
		return fmt.Errorf("bus: mirror %s: rebuild: %w", g.stream, err)
	}
	return nil
}

func (g *guard) mended(why string) {
	now := time.Now()
	g.notUntil, g.moved, g.ended = now.Add(g.wait), now, time.Time{}
	g.wait = min(2*g.wait, mendPauseMax)
	g.mu.Lock()
	g.state.Mended++
	g.mu.Unlock()
	g.bus.log.to.Warn("a mirror of another region is mended", "region", g.region, "stream", g.stream, "why", why)
}

func (g *guard) ping() {
	g.n++
	data, err := json.Marshal(ping{Server: g.bus.srv.ID(), N: g.n, Bucket: g.bucket, Key: g.key})
	if err == nil {
		_ = g.bus.mesh.send(g.region, subjectPing, data) // at most once
	}
}

func (m *mesh) lastPong(region, bucket string) *pong {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[region]; p != nil {
		return p.states[bucket]
	}
	return nil
}
