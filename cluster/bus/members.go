package bus

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	askMetaLeader = "$SYS.REQ.SERVER.PING.JSZ"
	removeServer  = "$JS.API.SERVER.REMOVE"
	// What the engine writes in place of the name of a server it has not met
	// since it started.
	unnamedPeer = "Server name unknown"
)

// Member is a server of the region, as the region's leader sees it.
type Member struct {
	Name     string        // "" when the region has not seen it since the leader started
	Online   bool          // heard of a moment ago
	Current  bool          // has all that the region agreed on
	Leader   bool          // leads the region; streams have leaders of their own
	Lag      uint64        // entries it is behind
	LastSeen time.Duration // since it was heard of; 0 for the one which tells, or never
}

// Peers returns the servers of the region, sorted by name, this one and those
// which are down included. Without a leader the list is what this server knows
// itself: who is Online, and nobody but itself Current. Standalone it is empty.
func (b *Bus) Peers(ctx context.Context) ([]Member, error) {
	if !b.Clustered() {
		return nil, nil
	}
	meta, teller, err := b.meta(ctx)
	if err != nil {
		return nil, fmt.Errorf("bus: peers: %w", err)
	}
	peers := make([]Member, 0, len(meta.Replicas)+1)
	if meta.Leader != "" {
		peers = append(peers, Member{Name: meta.Leader, Online: true, Current: true, Leader: true})
	}
	for _, p := range meta.Replicas {
		peers = append(peers, b.peer(p, teller))
	}
	slices.SortFunc(peers, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return peers, nil
}

func (b *Bus) peer(p *server.PeerInfo, teller string) Member {
	if p.Name == teller {
		return Member{Name: p.Name, Online: true, Current: p.Current}
	}
	// The engine calls a server offline when it said goodbye; one which died in
	// silence only after minutes.
	online := !p.Offline && p.Active < b.region.Timers.lostQuorum()
	q := Member{Name: p.Name, Online: online, Current: p.Current && online, Lag: p.Lag, LastSeen: p.Active}
	if strings.HasPrefix(q.Name, unnamedPeer) {
		q.Name = ""
	}
	return q
}

// meta returns the state of the group which knows the region's streams, and the
// name of the server that tells: the leader, who alone knows how the others are,
// or this one when no leader answers.
func (b *Bus) meta(ctx context.Context) (m *server.MetaClusterInfo, teller string, err error) {
	if !b.srv.JetStreamIsLeader() {
		if m, err := b.askMetaLeader(ctx); err == nil {
			return m, m.Leader, nil
		} else if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return nil, "", err
		}
	}
	info, err := b.srv.Jsz(nil)
	if err != nil {
		return nil, "", err
	}
	if info.Meta == nil {
		return nil, "", ErrNoLeader
	}
	return info.Meta, b.srv.Name(), nil
}

func (b *Bus) askMetaLeader(ctx context.Context) (*server.MetaClusterInfo, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	m, err := b.system.nc.RequestWithContext(ctx, askMetaLeader, []byte(`{"leader_only":true}`))
	if err != nil {
		return nil, cause(err)
	}
	var answer struct {
		Data *server.JSInfo `json:"data"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, err
	}
	if answer.Data == nil || answer.Data.Meta == nil {
		return nil, ErrNoLeader
	}
	return answer.Data.Meta, nil
}

// RemovePeer takes a server which will never come back out of the region. What it
// held is copied to others as far as there are any; see Replicas. The name must
// not be used again. ErrMissing: the region has no such server.
//
// It must not be called for a server that is running, nor to shrink a region in
// which more than a minority is gone: it needs the leader.
func (b *Bus) RemovePeer(ctx context.Context, name string) error {
	if !b.Clustered() {
		return fmt.Errorf("bus: remove peer: %w", errStandalone)
	}
	// By id, for the region may have restarted since the server was last seen, and
	// then it knows no names of those that are gone.
	err := b.order(ctx, b.system, removeServer, server.JSApiMetaServerRemoveRequest{Server: name, Peer: peerID(name)})
	if err != nil {
		return fmt.Errorf("bus: remove peer %s: %w", name, err)
	}
	return nil
}

// peerID is what the engine makes of a server's name. A test compares the two.
func peerID(name string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(name))
	id := sum[:8]
	for i := range id {
		id[i] = digits[int(id[i])%len(digits)]
	}
	return string(id)
}

// SetReplicas gives all streams n replicas, and so those this Bus creates later.
// It returns when the region has agreed; the copying goes on after that, see
// Replicas. Streams before the one which failed have been changed.
func (b *Bus) SetReplicas(ctx context.Context, n int) error {
	if !b.Clustered() {
		return fmt.Errorf("bus: set replicas: %w", errStandalone)
	}
	if err := replicasValid(n); err != nil {
		return fmt.Errorf("bus: set replicas: %w", err)
	}
	streams, err := b.streamNames(ctx)
	if err != nil {
		return fmt.Errorf("bus: set replicas: %w", err)
	}
	for _, name := range streams {
		if err := b.await(ctx, func() error { return b.setReplicas(ctx, name, n) }); err != nil {
			return fmt.Errorf("bus: stream %s: set replicas: %w", name, err)
		}
	}
	b.replicas.Store(int64(n))
	return nil
}

func (b *Bus) setReplicas(ctx context.Context, stream string, n int) error {
	info, err := b.streamInfo(ctx, stream)
	if err != nil || info.Config.Replicas == n {
		return err
	}
	info.Config.Replicas = n
	ctx, cancel := b.within(ctx)
	defer cancel()
	_, err = b.bulk.js.UpdateStream(ctx, info.Config)
	return cause(err)
}

// StreamHealth tells how well a stream is replicated.
type StreamHealth struct {
	Leader   string // "" when none answers
	Replicas int    // as wanted; 0 when no leader answers
	Current  int    // of them, those which are up and have everything, leader included
}

// Replicas returns the state of each stream by its name in the engine: LOG_x,
// KV_x, OBJ_x for the Log, Table, Archive x. ErrNoLeader: the region has no leader
// to list them.
func (b *Bus) Replicas(ctx context.Context) (map[string]StreamHealth, error) {
	names, err := b.streamNames(ctx)
	if err != nil {
		return nil, fmt.Errorf("bus: replicas: %w", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := make(map[string]StreamHealth, len(names))
	for _, name := range names {
		wg.Go(func() { // at once: each one without a leader takes AnswerWait to find out
			h := b.streamHealth(ctx, name)
			mu.Lock()
			all[name] = h
			mu.Unlock()
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("bus: replicas: %w", err)
	}
	return all, nil
}

func (b *Bus) streamHealth(ctx context.Context, name string) StreamHealth {
	info, err := b.streamInfo(ctx, name)
	if err != nil {
		return StreamHealth{}
	}
	h := StreamHealth{Leader: b.srv.Name(), Replicas: info.Config.Replicas, Current: 1}
	if info.Cluster == nil {
		return h
	}
	if h.Leader = info.Cluster.Leader; h.Leader == "" {
		h.Current = 0
	}
	for _, p := range info.Cluster.Replicas {
		if p.Current && !p.Offline {
			h.Current++
		}
	}
	return h
}

// streamNames asks the region's leader, who alone can say which streams there are.
func (b *Bus) streamNames(ctx context.Context) ([]string, error) {
	within, cancel := b.within(ctx)
	defer cancel()
	var names []string
	l := b.bulk.js.StreamNames(within)
	for name := range l.Name() {
		names = append(names, name)
	}
	if err := l.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, b.silence(ctx, cause(err))
	}
	if err := within.Err(); err != nil {
		return nil, b.silence(ctx, err)
	}
	return names, nil
}
