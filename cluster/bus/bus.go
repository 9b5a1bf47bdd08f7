// Package bus is the storage engine of a stockmesh node: an embedded NATS
// JetStream server which fsyncs every write, and the three shapes the rest of
// the program keeps in it. A [Log] is an append-only sequence of messages, a
// [Table] a set of rows with revisions, an [Archive] a set of large objects.
//
// The package knows bytes and sequences, and no stock. It is the only one which
// imports nats-server and nats.go, and no type of theirs is part of its API.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// MessageBytesMax is the largest message a Log, and the largest row a Table takes.
	MessageBytesMax = 8<<20 - headerRoom

	headerRoom        = 4 << 10
	payloadBytesMax   = 8 << 20
	answerWaitDefault = 5 * time.Second
	startWait         = 10 * time.Second
	drainWait         = 5 * time.Second
	// Left alone the server takes the disk space which was free at the start as
	// its limit, and so counts what the streams already hold against them.
	storeBytesUnlimited = 1 << 50
)

// Config says where a Bus keeps its data and how it behaves.
type Config struct {
	Dir  string // data directory, created when missing; one Bus at a time
	Name string // server name, unique in a region and the same on each start

	Logger *slog.Logger // receives the engine's own lines; nil drops them

	// AnswerWait bounds each wait for one answer of the engine, next to the
	// caller's context. 0 means 5 s, and 1 s with a Region: there an answer can get
	// lost with the leader that owed it.
	AnswerWait time.Duration

	// StoreBytesMax makes the engine refuse writes with ErrFull once its streams
	// hold that many bytes. 0 means no limit but the disk, and a full disk is
	// worse: the stream it hits takes no more writes until the next start.
	StoreBytesMax int64

	// Region makes the engine one server of a cluster; nil means standalone. A
	// directory keeps the kind it was first opened with: the engine would delete a
	// standalone server's streams when it comes back as a member.
	Region *Region
	Mesh   *Mesh

	// Fresh says that nothing in Dir was ever acknowledged. Then a standalone engine
	// deletes streams that it can't recover, as it always does with mirrors.
	Fresh bool
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("bus: Dir is empty")
	case c.Name == "":
		return errors.New("bus: Name is empty")
	case c.AnswerWait < 0:
		return fmt.Errorf("bus: AnswerWait %v is negative", c.AnswerWait)
	case c.StoreBytesMax < 0:
		return fmt.Errorf("bus: StoreBytesMax %d is negative", c.StoreBytesMax)
	}
	return errors.Join(c.Region.validate(), c.Mesh.validate(c.Region))
}

func (c Config) withDefaults() Config {
	if c.AnswerWait == 0 {
		c.AnswerWait = answerWaitDefault
		if c.Region != nil {
			c.AnswerWait = answerWaitRegion
		}
	}
	if c.Region != nil {
		r := *c.Region
		r.Timers = r.Timers.withDefaults()
		c.Region = &r
	}
	return c
}

// Bus is a running engine. All methods may be called from several goroutines.
type Bus struct {
	srv        *server.Server
	log        *serverLog
	answerWait time.Duration
	region     *Region      // nil: standalone
	mesh       *mesh        // nil: no other regions
	replicas   atomic.Int64 // of streams to create

	// Appends have a connection of their own: on a shared one a commit would
	// queue behind whatever bulk transfer is on its way.
	commit *link
	bulk   *link
	wire   *link // Publish and Subscribe
	system *link // changes the region's members; nil when standalone

	closing   chan struct{}
	closeOnce sync.Once
}

// Open starts the engine on c.Dir and returns when it is ready to use. Reading
// the stored streams is part of that and can't be interrupted; ctx is checked
// after it. A standalone engine which could not recover a stored stream is an
// error, but for mirrors: it would pass for one that never had it. A server of a region is open
// before the region has a quorum: see AwaitQuorum.
func Open(ctx context.Context, c Config) (*Bus, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	b, err := open(ctx, c)
	if err == nil {
		return b, nil
	}
	if err := c.forget(err); err != nil {
		return nil, err
	}
	return open(ctx, c)
}

func open(ctx context.Context, c Config) (*Bus, error) {
	b := &Bus{log: newServerLog(c.Logger), answerWait: c.AnswerWait, region: c.Region, closing: make(chan struct{})}
	b.replicas.Store(1)
	if err := b.start(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("bus: open %s: %w", c.Dir, err), b.Close())
	}
	return b, nil
}

func (b *Bus) start(ctx context.Context, c Config) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if err := sweepProbes(dir); err != nil {
		return err
	}
	if err := b.build(c, dir); err != nil {
		return err
	}
	b.srv.SetLogger(b.log, false, false)
	b.srv.Start()
	if err := b.log.fatal(); err != nil {
		return err
	}
	b.route()
	if err := b.log.fatal(); err != nil {
		return err
	}
	if !b.srv.ReadyForConnections(startWait) {
		return errors.New("server is not ready")
	}
	if err := b.health(); err != nil && !errors.Is(err, ErrNoLeader) {
		if b.Clustered() {
			return err
		}
		return b.unrecovered(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.connect(); err != nil {
		return err
	}
	if b.mesh != nil {
		return b.mesh.start()
	}
	return nil
}

// build makes the server, alone or as a member of its region.
func (b *Bus) build(c Config, dir string) (err error) {
	o := serverOptions(c, dir)
	auth := &accounts{log: b.log}
	if c.Region != nil {
		if err := c.Region.Timers.apply(); err != nil {
			return err
		}
		if err := c.Region.cluster(o); err != nil {
			return err
		}
		b.replicas.Store(int64(c.Region.Replicas))
	}
	if c.Mesh != nil {
		if err := c.Mesh.options(o); err != nil {
			return err
		}
		b.mesh = newMesh(b, c.Mesh)
		auth.mesh = b.mesh
	}
	if c.Region != nil || c.Mesh != nil {
		o.CustomClientAuthentication = auth
	}
	base := o.Clone() // the server completes its own
	if b.srv, err = server.NewServer(o); err != nil {
		return err
	}
	auth.srv = b.srv
	if b.mesh != nil {
		b.mesh.base = base
	}
	return nil
}

func (b *Bus) connect() (err error) {
	if b.commit, err = b.dial("commit"); err != nil {
		return err
	}
	if b.bulk, err = b.dial("bulk"); err != nil {
		return err
	}
	if b.wire, err = b.dial("wire"); err != nil {
		return err
	}
	if b.Clustered() {
		b.system, err = b.dial("system", asSystem())
	}
	return err
}

func serverOptions(c Config, dir string) *server.Options {
	limit := c.StoreBytesMax
	if limit == 0 {
		limit = storeBytesUnlimited
	}
	return &server.Options{
		ServerName:             c.Name,
		DontListen:             true,
		NoSigs:                 true,
		NoLog:                  true, // the server's own log set-up; SetLogger replaces it
		MaxPayload:             payloadBytesMax,
		JetStream:              true,
		DisableJetStreamBanner: true,
		JetStreamMaxStore:      limit,
		StoreDir:               dir,
		SyncAlways:             true,
	}
}

// Close stops the engine and waits for it. It may be called more than once. A
// call in progress on another goroutine ends with an error; for an Append or
// Put that is ErrUnknown. In a region call StepDownAll before it.
func (b *Bus) Close() error {
	var err error
	b.closeOnce.Do(func() {
		close(b.closing)
		b.mesh.close()
		err = errors.Join(b.commit.close(), b.bulk.close(), b.wire.close(), b.system.close())
		if b.srv != nil {
			b.srv.Shutdown()
			b.srv.WaitForShutdown()
		}
	})
	return err
}

// Err reports why the engine can't be used any more: ErrClosed after Close,
// ErrBroken when a disk has failed, ErrFull too when it was full, otherwise what the
// server says of itself (a lost connection, for instance).
// ErrNoLeader is no fault of this engine: its region has no quorum, or it has just
// started. Peers that are down and streams still catching up are no error at all.
// It lists the stored streams each time: right for a health check once a second,
// wrong for each request.
func (b *Bus) Err() error {
	select {
	case <-b.closing:
		return ErrClosed
	default:
	}
	if err := b.log.fatal(); err != nil {
		return err
	}
	if err := b.health(); err != nil {
		return err
	}
	return errors.Join(b.commit.err(), b.bulk.err(), b.wire.err())
}

// Used returns the bytes all streams hold, as the engine counts them. It reads
// counters in memory.
func (b *Bus) Used() uint64 {
	acc := b.srv.GlobalAccount()
	if acc == nil {
		return 0
	}
	return acc.JetStreamUsage().Store
}

func hasAny(s string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(s, p) })
}

// within is ctx bounded by AnswerWait, for one request and its answer.
func (b *Bus) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.answerWait)
}

// stream binds to the stream called c.Name, and creates it as c says when it is
// missing and create is true. The configuration of an existing one stays as it is.
// In a region it waits for a leader until ctx ends.
func (b *Bus) stream(ctx context.Context, c jetstream.StreamConfig, create bool) (s jetstream.Stream, err error) {
	c.Replicas = int(b.replicas.Load())
	if b.Clustered() {
		err = b.await(ctx, func() (err error) {
			s, err = b.bind(ctx, c, create)
			return leaderless(err)
		})
	} else {
		s, err = b.bind(ctx, c, create)
	}
	if err != nil {
		return nil, fmt.Errorf("bus: stream %s: %w", c.Name, err)
	}
	got := s.CachedInfo().Config
	if got.Storage != jetstream.FileStorage || got.PersistMode == jetstream.AsyncPersistMode && c.Mirror == nil {
		// Either setting cancels SyncAlways without a word.
		return nil, fmt.Errorf("bus: stream %s: %w", c.Name, errNotDurable)
	}
	return s, nil
}

func (b *Bus) bind(ctx context.Context, c jetstream.StreamConfig, create bool) (jetstream.Stream, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	s, err := b.bulk.js.Stream(ctx, c.Name)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return s, cause(err)
	}
	if b.Clustered() {
		if err := b.absent(ctx, c.Name); err != nil {
			return nil, err
		}
	}
	if !create {
		return nil, cause(err)
	}
	s, err = b.bulk.js.CreateStream(ctx, c)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		s, err = b.bulk.js.Stream(ctx, c.Name) // somebody else was first
	}
	return s, cause(err)
}

// absent makes sure that a region has no such stream. A server which has just
// started may say so of one it has not loaded yet; the region's leader may not.
func (b *Bus) absent(ctx context.Context, name string) error {
	names, err := b.streamNames(ctx)
	if err == nil && slices.Contains(names, name) {
		err = fmt.Errorf("%w: stream is not loaded yet", ErrNoLeader)
	}
	return err
}

// nameValid is what the engine takes as a stream or bucket name everywhere.
func nameValid(name string) error {
	for i := range len(name) {
		if !isPlain(name[i]) {
			return fmt.Errorf("bus: %w: %q", ErrName, name)
		}
	}
	if name == "" {
		return fmt.Errorf("bus: %w: empty", ErrName)
	}
	return nil
}

// link is one in-process connection.
type link struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	down chan struct{} // closed when the connection is closed for good
}

func (b *Bus) dial(name string, more ...nats.Option) (*link, error) {
	l := &link{down: make(chan struct{})}
	nc, err := nats.Connect("", append(more,
		nats.InProcessServer(b.srv),
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond),
		nats.ReconnectBufSize(-1), // a write to a lost connection fails now, not later
		nats.DrainTimeout(drainWait),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warnf("%s connection: %v", name, err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(l.down) }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	l.nc = nc
	l.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(b.answerWait), jetstream.WithPublishAsyncTimeout(b.answerWait))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return l, nil
}

func (l *link) err() error {
	if s := l.nc.Status(); s != nats.CONNECTED {
		return fmt.Errorf("bus: connection is %s", s)
	}
	return nil
}

// close lets what was sent reach the server, then waits for the connection to end.
func (l *link) close() error {
	if l == nil {
		return nil
	}
	err := l.nc.Drain()
	if err != nil {
		l.nc.Close()
	}
	<-l.down
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) {
		return nil
	}
	return err
}
