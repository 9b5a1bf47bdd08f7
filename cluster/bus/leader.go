package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	stepDownStream = "$JS.API.STREAM.LEADER.STEPDOWN."
	stepDownMeta   = "$JS.API.META.LEADER.STEPDOWN"
)

// A server that steps down may win the election that follows, when the one it
// chose has just joined. It is then asked again, so often.
const stepDownTries = 5

// leaderLook bounds the first look who leads while an election is under way.
const leaderLook = 100 * time.Millisecond

var errStillLeads = fmt.Errorf("%w: the old leader was elected again", ErrBusy)

// Leads tells whether this server leads the log's stream: the place to append
// from. It is a hint, for a leader that was cut off may believe in itself for
// some seconds; the sequence which Append names is the fence. Standalone it is
// always true. It reads memory only.
func (l *Log) Leads() bool { return l.bus.leads("LOG_" + l.name) }

func (b *Bus) leads(stream string) bool {
	return !b.Clustered() || b.srv.JetStreamIsStreamLeader(accountData, stream)
}

// AwaitCurrent waits until this server's copy of the log is as new as the others', so
// that it counts for the quorum. Where it holds no copy it returns at once. The error is
// ctx's.
func (l *Log) AwaitCurrent(ctx context.Context) error {
	stream := "LOG_" + l.name
	for l.bus.Clustered() && !l.bus.srv.JetStreamIsStreamCurrent(accountData, stream) {
		info, err := l.bus.streamInfo(ctx, stream)
		if err == nil && !holdsCopy(info, l.bus.srv.Name()) {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fmt.Errorf("bus: log %s: this server's copy is not current: %w", l.name, ctx.Err())
		}
	}
	return nil
}

// holdsCopy tells whether a server is among a stream's replicas.
func holdsCopy(info *jetstream.StreamInfo, server string) bool {
	if info.Cluster == nil || info.Cluster.Leader == server {
		return true
	}
	return slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return p.Name == server })
}

// Leader returns the name of the server which leads the log's stream, as that
// server says itself; ErrNoLeader when none answers. Standalone it is this one.
func (l *Log) Leader(ctx context.Context) (name string, err error) {
	name, _, err = l.bus.leader(ctx, "LOG_"+l.name)
	if err != nil {
		return "", fmt.Errorf("bus: log %s: leader: %w", l.name, err)
	}
	return name, nil
}

// leader asks a stream's leader for its name and its peers.
func (b *Bus) leader(ctx context.Context, stream string) (name string, peers []*jetstream.PeerInfo, err error) {
	if !b.Clustered() {
		return b.srv.Name(), nil, nil
	}
	info, err := b.streamInfo(ctx, stream)
	if err != nil {
		return "", nil, err
	}
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return "", nil, ErrNoLeader
	}
	return info.Cluster.Leader, info.Cluster.Replicas, nil
}

// streamInfo is answered by the stream's leader; silence is ErrNoLeader.
func (b *Bus) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	within, cancel := b.within(ctx)
	defer cancel()
	s, err := b.bulk.js.Stream(within, stream)
	if err != nil {
		return nil, b.silence(ctx, cause(err))
	}
	return s.CachedInfo(), nil
}

// silence names the error of a read request in a region which got no answer,
// although the caller was still waiting.
func (b *Bus) silence(ctx context.Context, err error) error {
	if b.Clustered() && ctx.Err() == nil {
		return leaderless(err)
	}
	return err
}

func leaderless(err error) error {
	if passes(err) && !errors.Is(err, ErrNoLeader) {
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return err
}

// StepDown hands the leadership of the log's stream to the server called prefer,
// or with "" to the peer which is closest behind, and returns when another server
// leads. The engine takes any other peer when prefer is not alive. Nothing is done
// when prefer leads already, when the stream has one replica, or standalone.
//
// An append which is on its way meanwhile gets ErrUnknown.
func (l *Log) StepDown(ctx context.Context, prefer string) error {
	if err := l.bus.stepDown(ctx, "LOG_"+l.name, prefer); err != nil {
		return fmt.Errorf("bus: log %s: step down: %w", l.name, err)
	}
	return nil
}

func (b *Bus) stepDown(ctx context.Context, stream, prefer string) error {
	old, peers, err := b.leader(ctx, stream)
	if err != nil || len(peers) == 0 || prefer == old {
		return err
	}
	if prefer == "" {
		prefer = closest(peers)
	}
	for range stepDownTries {
		err = b.order(ctx, b.bulk, stepDownStream+stream, placement(prefer))
		if err == nil || passes(err) {
			err = b.awaitOther(ctx, stream, old)
		}
		if !passes(err) || ctx.Err() != nil {
			return err
		}
	}
	return leaderless(err)
}

// awaitOther waits until another server than old leads the stream.
func (b *Bus) awaitOther(ctx context.Context, stream, old string) error {
	ctx, cancel := b.within(ctx)
	defer cancel()
	patience := leaderLook
	return b.await(ctx, func() error {
		// A question that comes between two leaders is never answered; any other is, on a
		// slow machine or over a long way after a while.
		look, done := context.WithTimeout(ctx, patience)
		defer done()
		patience *= 2
		now, _, err := b.leader(look, stream)
		if err == nil && now == old {
			err = errStillLeads
		}
		return err
	})
}

// closest picks the follower with the least to catch up; "" when none is alive.
func closest(peers []*jetstream.PeerInfo) string {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p *jetstream.PeerInfo) bool { return p.Offline || !p.Current })
	if len(peers) == 0 {
		return ""
	}
	return slices.MinFunc(peers, func(a, b *jetstream.PeerInfo) int {
		if a.Lag != b.Lag {
			return int(min(a.Lag, 1<<30)) - int(min(b.Lag, 1<<30))
		}
		return int(a.Active - b.Active)
	}).Name
}

func placement(prefer string) any {
	if prefer == "" {
		return struct{}{}
	}
	return server.JSApiLeaderStepdownRequest{Placement: &server.Placement{Preferred: prefer}}
}

// order sends a request to the engine whose answer is a mere success or an error.
func (b *Bus) order(ctx context.Context, on *link, subject string, request any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	within, cancel := b.within(ctx)
	defer cancel()
	m, err := on.nc.RequestWithContext(within, subject, data)
	if err != nil {
		return b.silence(ctx, cause(err))
	}
	var answer struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return refused(answer.Error)
	}
	return nil
}

// StepDownAll hands over everything this server leads, streams first and the
// region's own leadership last. Call it before a planned Close: the others need
// not find out by silence. It ends with ctx, and with an error when something
// could not be handed over; closing is safe then too, only slower for the region.
func (b *Bus) StepDownAll(ctx context.Context) error {
	if !b.Clustered() {
		return nil
	}
	var errs []error
	for _, stream := range b.led() {
		if err := b.stepDown(ctx, stream, ""); err != nil {
			errs = append(errs, fmt.Errorf("bus: stream %s: step down: %w", stream, err))
		}
	}
	if err := b.stepDownMeta(ctx); err != nil {
		errs = append(errs, fmt.Errorf("bus: region: step down: %w", err))
	}
	return errors.Join(errs...)
}

// led lists the streams which this server leads and another one could lead.
func (b *Bus) led() (streams []string) {
	info, err := b.srv.Jsz(&server.JSzOptions{Account: accountData, Streams: true})
	if err != nil {
		return nil
	}
	for _, account := range info.AccountDetails {
		for _, s := range account.Streams {
			if s.Cluster != nil && len(s.Cluster.Replicas) > 0 && b.leads(s.Name) {
				streams = append(streams, s.Name)
			}
		}
	}
	return streams
}

func (b *Bus) stepDownMeta(ctx context.Context) error {
	if !b.srv.JetStreamIsLeader() {
		return nil
	}
	if err := b.order(ctx, b.system, stepDownMeta, struct{}{}); err != nil {
		return err
	}
	return b.await(ctx, func() error {
		if b.srv.JetStreamIsLeader() {
			return errStillLeads
		}
		return b.metaHealth()
	})
}
