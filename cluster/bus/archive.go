package bus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	chunkBytes = 128 << 10
	// The library would send up to 4,000 chunks ahead of the disk: 512 MB, of
	// which the server drops all beyond 128 MB.
	chunksInFlight = 8
)

// Archive is a set of large objects, stored as a NATS object store bucket: any
// NATS tool can read it.
type Archive struct {
	bus    *Bus
	bucket string
	stream jetstream.Stream
}

// Archive opens the bucket, named with A-Z a-z 0-9 - and _. When it does not
// exist it is created if create is true; otherwise the error is ErrMissing.
func (b *Bus) Archive(ctx context.Context, bucket string, create bool) (*Archive, error) {
	if err := nameValid(bucket); err != nil {
		return nil, err
	}
	s, err := b.stream(ctx, archiveConfig(bucket), create)
	if err != nil {
		return nil, err
	}
	return &Archive{bus: b, bucket: bucket, stream: s}, nil
}

// archiveConfig is what the NATS libraries make of an object store.
func archiveConfig(bucket string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        "OBJ_" + bucket,
		Subjects:    []string{"$O." + bucket + ".C.>", "$O." + bucket + ".M.>"},
		Storage:     jetstream.FileStorage,
		Replicas:    1,
		Discard:     jetstream.DiscardNew,
		AllowRollup: true,
		AllowDirect: true,
	}
}

func (a *Archive) chunkSubject(id string) string { return "$O." + a.bucket + ".C." + id }

func (a *Archive) metaSubject(name string) string {
	return "$O." + a.bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// Put stores what write writes as the object name, and replaces an older one of
// that name. The object becomes visible, or changes, only when all of it is on
// disk. When write or the engine fails the error says so and nothing has
// changed; with ErrUnknown the object may have become visible. Calls of write's
// Writer wait for the disk, and must not go on after write has returned.
func (a *Archive) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := a.put(ctx, name, write); err != nil {
		return fmt.Errorf("bus: archive %s: put %s: %w", a.bucket, name, err)
	}
	return nil
}

func (a *Archive) put(ctx context.Context, name string, write func(io.Writer) error) error {
	if name == "" {
		return fmt.Errorf("%w: empty", ErrName)
	}
	old, err := a.info(ctx, name)
	if err != nil && !errors.Is(err, ErrMissing) {
		return err
	}
	w := &chunkWriter{ctx: ctx, js: a.bus.bulk.js, subject: a.chunkSubject(rand.Text()), digest: sha256.New()}
	if err = write(w); err == nil {
		err = w.finish()
	}
	if err == nil {
		err = a.publishInfo(ctx, name, w)
	}
	switch {
	case errors.Is(err, ErrUnknown): // the chunks may be an object's by now
		return err
	case err != nil:
		w.settle()
		return errors.Join(err, a.purge(ctx, w.subject))
	case old != nil:
		_ = a.purge(ctx, a.chunkSubject(old.NUID)) // Put has done its work; Sweep finds the rest
	}
	return nil
}

// info returns what the bucket knows of an object. The library's own would ask
// any replica, which may not have heard of it yet.
func (a *Archive) info(ctx context.Context, name string) (*jetstream.ObjectInfo, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: empty", ErrName)
	}
	m, err := a.bus.leaderGet(ctx, "OBJ_"+a.bucket, []byte(`{"last_by_subj":"`+a.metaSubject(name)+`"}`))
	if err != nil {
		return nil, err
	}
	var info jetstream.ObjectInfo
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return nil, err
	}
	if info.Deleted {
		return nil, ErrMissing // the mark a NATS tool left
	}
	return &info, nil
}

// publishInfo writes the message which makes the object visible.
func (a *Archive) publishInfo(ctx context.Context, name string, w *chunkWriter) error {
	ctx, cancel := a.bus.within(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := json.Marshal(jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkBytes}},
		Bucket:     a.bucket,
		NUID:       w.subject[strings.LastIndexByte(w.subject, '.')+1:],
		Size:       w.size,
		Chunks:     w.chunks,
		Digest:     jetstream.GetObjectDigestValue(w.digest),
	})
	if err != nil {
		return err
	}
	answer, err := a.bus.bulk.nc.RequestMsgWithContext(ctx, &nats.Msg{
		Subject: a.metaSubject(name),
		Data:    data,
		Header:  nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
	})
	if err != nil {
		return a.bus.sentThen(err)
	}
	got, err := parseAck(answer.Data)
	if err == nil && got.Error != nil {
		err = refused(got.Error)
	}
	return err
}

// purge removes a subject's messages, even when ctx is over: what is left behind
// would hold its space for ever.
func (a *Archive) purge(ctx context.Context, subject string) error {
	ctx, cancel := a.bus.within(context.WithoutCancel(ctx))
	defer cancel()
	return cause(a.stream.Purge(ctx, jetstream.WithPurgeSubject(subject)))
}

// chunkWriter publishes what is written to it in chunks.
type chunkWriter struct {
	ctx      context.Context
	js       jetstream.JetStream
	subject  string
	digest   hash.Hash
	buf      []byte
	inFlight []jetstream.PubAckFuture
	chunks   uint32
	size     uint64
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		k := min(len(p)-n, chunkBytes-len(w.buf))
		w.buf = append(w.buf, p[n:n+k]...)
		n += k
		if len(w.buf) == chunkBytes {
			if err := w.send(); err != nil {
				return n, err
			}
		}
	}
	return len(p), nil
}

func (w *chunkWriter) send() error {
	if err := w.await(chunksInFlight - 1); err != nil {
		return err
	}
	w.digest.Write(w.buf)
	f, err := w.js.PublishMsgAsync(&nats.Msg{Subject: w.subject, Data: w.buf})
	if err != nil {
		return cause(err)
	}
	w.inFlight = append(w.inFlight, f)
	w.chunks++
	w.size += uint64(len(w.buf))
	// The library keeps the message to send it again when no stream answers.
	w.buf = make([]byte, 0, chunkBytes)
	return nil
}

// await returns when at most so many chunks are not acknowledged.
func (w *chunkWriter) await(most int) error {
	for len(w.inFlight) > most {
		f := w.inFlight[0]
		select {
		case <-f.Ok():
			w.inFlight = w.inFlight[1:]
		case err := <-f.Err():
			return cause(err)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
	return w.ctx.Err()
}

// settle waits until each chunk sent is stored or lost, so that a purge finds
// them all. Each publish ends by itself after Config.AnswerWait.
func (w *chunkWriter) settle() {
	for _, f := range w.inFlight {
		select {
		case <-f.Ok():
		case <-f.Err():
		}
	}
}

func (w *chunkWriter) finish() error {
	if len(w.buf) > 0 {
		if err := w.send(); err != nil {
			return err
		}
	}
	return w.await(0)
}

// Open returns the object's bytes. ctx bounds all of the reading, not only this
// call. The Reader ends with ErrCorrupt instead of io.EOF when the bytes are not
// those which were put, so nothing read is good before the end. The caller must
// Close it.
func (a *Archive) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	info, err := a.info(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bus: archive %s: open %s: %w", a.bucket, name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	r := &objectReader{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := a.copyTo(ctx, pw, info); err != nil {
			pw.CloseWithError(fmt.Errorf("bus: archive %s: read %s: %w", a.bucket, name, err))
			return
		}
		pw.Close()
	}()
	return r, nil
}

func (a *Archive) copyTo(ctx context.Context, w io.Writer, info *jetstream.ObjectInfo) error {
	digest, size := sha256.New(), uint64(0)
	spec := scanSpec{stream: "OBJ_" + a.bucket, subject: a.chunkSubject(info.NUID), most: uint64(info.Chunks)}
	if spec.most > 0 {
		err := a.bus.scan(ctx, spec, func(e entry) error {
			digest.Write(e.msg.Data)
			size += uint64(len(e.msg.Data))
			_, err := w.Write(e.msg.Data)
			return err
		})
		if err != nil {
			return err
		}
	}
	if size != info.Size || jetstream.GetObjectDigestValue(digest) != info.Digest {
		return ErrCorrupt
	}
	return nil
}

// objectReader owns the goroutine which fills its pipe.
type objectReader struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (r *objectReader) Close() error {
	r.cancel()
	err := r.PipeReader.Close()
	<-r.done
	return err
}

// Names returns the names of all objects, sorted.
func (a *Archive) Names(ctx context.Context) ([]string, error) {
	infos, err := a.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("bus: archive %s: names: %w", a.bucket, err)
	}
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	slices.Sort(names)
	return names, nil
}

func (a *Archive) list(ctx context.Context) (infos []*jetstream.ObjectInfo, err error) {
	spec := scanSpec{stream: "OBJ_" + a.bucket, subject: "$O." + a.bucket + ".M.>"}
	err = a.bus.scan(ctx, spec, func(e entry) error {
		var info jetstream.ObjectInfo
		if err := json.Unmarshal(e.msg.Data, &info); err != nil {
			return err
		}
		if !info.Deleted {
			infos = append(infos, &info)
		}
		return nil
	})
	return infos, err
}

// Delete removes the object, or returns ErrMissing. A Reader open on it fails.
func (a *Archive) Delete(ctx context.Context, name string) error {
	info, err := a.info(ctx, name)
	if err == nil {
		// Its info first: a crash in between leaves chunks without an object, for
		// Sweep, and not an object without chunks. The library would leave a mark
		// behind for each name there ever was.
		err = a.purge(ctx, a.metaSubject(name))
	}
	if err == nil {
		err = a.purge(ctx, a.chunkSubject(info.NUID))
	}
	if err != nil {
		return fmt.Errorf("bus: archive %s: delete %s: %w", a.bucket, name, err)
	}
	return nil
}

// Sweep removes chunks which belong to no object, left by a process that died in
// Put or Delete. It must not run beside a Put of any process: call it before the
// first one.
func (a *Archive) Sweep(ctx context.Context) error {
	if err := a.sweep(ctx); err != nil {
		return fmt.Errorf("bus: archive %s: sweep: %w", a.bucket, err)
	}
	return nil
}

func (a *Archive) sweep(ctx context.Context) error {
	objects, err := a.list(ctx)
	if err != nil {
		return err
	}
	within, cancel := a.bus.within(ctx)
	defer cancel()
	info, err := a.stream.Info(within, jetstream.WithSubjectFilter(a.chunkSubject("*")))
	if err != nil {
		return cause(err)
	}
	orphans := info.State.Subjects
	for _, o := range objects {
		delete(orphans, a.chunkSubject(o.NUID))
	}
	for subject := range orphans {
		if err := a.purge(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}
