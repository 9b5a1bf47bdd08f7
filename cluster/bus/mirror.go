package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// deliveries is where one region's mirrors of another's buckets get their rows.
func deliveries(to, from string) string { return "mirror." + to + "." + from }

// Mirror is another region's Table, kept here as a stream that the engine fills over
// the links, with the origin's revisions. It goes on by itself; a guard mends it where
// the engine does not, or not soon.
type Mirror struct {
	bus    *Bus
	region string
	bucket string
	stream string
	key    string // of the row that tells one life of the origin from the next
	prefix string

	end   context.CancelFunc // of the guard
	mu    sync.Mutex
	state MirrorState
}

// MirrorState is how a mirror is, as this server knows it.
type MirrorState struct {
	HeardAt time.Time // when that region last gave a sign of life; zero: never
	Behind  uint64    // the origin's last revision less the mirror's
	Mended  int       // times this server has mended it
	Err     error     // why the mirror can't be looked at, or mended; nil if it can
}

// Mirror opens the mirror of a region's bucket, creates it when it is missing, and
// begins to guard it. IncarnationKey is the key of a row that the origin writes once
// in its life: a mirror that has another value of it is made anew; "" means there is
// no such row. It may be called again; the guard is one, rests while the region
// is not linked, and ends with DropMirror or Close.
func (b *Bus) Mirror(ctx context.Context, region, bucket, incarnationKey string) (*Mirror, error) {
	if b.mesh == nil {
		return nil, errNoMesh
	}
	if err := errors.Join(nameValid(region), nameValid(bucket)); err != nil {
		return nil, err
	}
	m := &Mirror{
		bus: b, region: region, bucket: bucket, key: incarnationKey,
		stream: mirrorStream(region, bucket), prefix: "$KV." + bucket + ".",
	}
	if _, err := m.open(ctx); err != nil {
		return nil, err
	}
	return b.mesh.guarded(m)
}

func mirrorStream(region, bucket string) string { return "KV_" + bucket + "_" + region }

func (m *Mirror) config() jetstream.StreamConfig {
	persist := jetstream.DefaultPersistMode
	if !m.bus.Clustered() {
		// What a crash takes from the end of it comes again from the origin. With one
		// sync per row a mirror could not keep up with a busy region, and would hold
		// up this one's own commits. A replicated stream can't have this mode.
		persist = jetstream.AsyncPersistMode
	}
	return jetstream.StreamConfig{
		PersistMode:       persist,
		Name:              m.stream,
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		Mirror: &jetstream.StreamSource{
			Name: "KV_" + m.bucket,
			External: &jetstream.ExternalStream{
				APIPrefix:     mirrorAPI(m.region, m.bus.mesh.config.Region),
				DeliverPrefix: deliveries(m.bus.mesh.config.Region, m.region),
			},
		},
	}
}

func (m *Mirror) open(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := m.bus.stream(ctx, m.config(), true)
	if err != nil {
		return nil, err
	}
	info := s.CachedInfo()
	want := m.config().Mirror.External
	if o := info.Config.Mirror; o == nil || o.External == nil || *o.External != *want {
		return nil, fmt.Errorf("bus: stream %s is no mirror of %s's bucket %s", m.stream, m.region, m.bucket)
	}
	return info, nil
}

// guarded returns the one mirror of that name, with its guard running.
func (m *mesh) guarded(mirror *Mirror) (*Mirror, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.mirrors[mirror.stream]; old != nil {
		return old, nil
	}
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(m.ctx)
	mirror.end = cancel
	m.mirrors[mirror.stream] = mirror
	m.tasks.Go(func() { mirror.guard(ctx) })
	return mirror, nil
}

// DropMirror ends the guard and deletes what is kept of a region's bucket. Followers
// must have ended, here and on the region's other servers, or have been unlinked: they
// would make it anew.
func (b *Bus) DropMirror(ctx context.Context, region, bucket string) error {
	if b.mesh == nil {
		return errNoMesh
	}
	stream := mirrorStream(region, bucket)
	b.mesh.unguard(stream)
	if err := b.deleteStream(ctx, stream); err != nil {
		return fmt.Errorf("bus: drop mirror of %s's %s: %w", region, bucket, err)
	}
	return nil
}

func (m *mesh) unguard(stream string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mirror := m.mirrors[stream]; mirror != nil {
		mirror.end()
		delete(m.mirrors, stream)
	}
}

func (b *Bus) deleteStream(ctx context.Context, stream string) error {
	within, cancel := b.within(ctx)
	defer cancel()
	err := cause(b.bulk.js.DeleteStream(within, stream))
	if errors.Is(err, ErrMissing) {
		return nil
	}
	return b.silence(ctx, err)
}

// State tells how the mirror is. It reads memory only.
func (m *Mirror) State() MirrorState {
	m.mu.Lock()
	s := m.state
	m.mu.Unlock()
	s.HeardAt = m.bus.mesh.heardAt(m.region)
	return s
}

func (m *mesh) heardAt(region string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[region]; p != nil {
		return p.heard
	}
	return time.Time{}
}

// Follow calls fn for all rows that the mirror holds, the oldest write first, and then
// for each row as it comes, until ctx ends; the error is ctx's then, else fn's,
// caughtUp's or ErrClosed. Rows come in batches from one goroutine, and may be kept.
// A Row's Revision is the one it has in its own region.
//
// No row is left out. When the reader's place in the stream, the stream's leader or the
// stream itself goes away, Follow reads again what it must, so a row may come twice,
// and an older one after a newer one of the same key, once the mirror was made anew.
// CaughtUp is called each time everything was handed over that the mirror held, at
// least once. It may be nil.
func (m *Mirror) Follow(ctx context.Context, fn func(rows []Row) error, caughtUp func() error) error {
	f := &follower{bus: m.bus, stream: m.stream, prefix: m.prefix, fn: fn, caughtUp: caughtUp}
	f.remake = func(ctx context.Context) (*jetstream.StreamInfo, error) {
		if !m.bus.mesh.linked(m.region) {
			return nil, ErrMissing
		}
		return m.open(ctx)
	}
	return f.follow(ctx)
}
