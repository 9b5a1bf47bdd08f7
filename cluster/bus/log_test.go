package bus

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
)

func newLog(t testing.TB, b *Bus) *Log {
	t.Helper()
	return must[*Log](t)(b.Log(t.Context(), "l", true))
}

// fill appends "1", "2", ... "n" to an empty log.
func fill(t testing.TB, l *Log, n uint64) {
	t.Helper()
	for seq := uint64(1); seq <= n; seq++ {
		if got := must[uint64](t)(l.Append(t.Context(), body(seq), seq-1)); got != seq {
			t.Fatalf("sequence %d, want %d", got, seq)
		}
	}
}

func body(seq uint64) []byte { return strconv.AppendUint(nil, seq, 10) }

// readAll reads from..to and returns the sequences, checking each body.
func readAll(t testing.TB, l *Log, from, to uint64) (seqs []uint64, err error) {
	t.Helper()
	err = l.Read(t.Context(), from, to, func(seq uint64, data []byte) error {
		if !bytes.Equal(data, body(seq)) {
			t.Fatalf("message %d holds %q", seq, data)
		}
		seqs = append(seqs, seq)
		return nil
	})
	return seqs, err
}

func wantBounds(t testing.TB, l *Log, first, last uint64) {
	t.Helper()
	f, n, err := l.Bounds(t.Context())
	if diff := cmp.Diff([]uint64{first, last}, []uint64{f, n}); err != nil || diff != "" {
		t.Fatalf("bounds (%v): %s", err, diff)
	}
}

func TestAppendExpectsTheLastSequence(t *testing.T) {
	l := newLog(t, openBus(t))
	wantBounds(t, l, 1, 0)
	fill(t, l, 3)
	wantBounds(t, l, 1, 3)
	for _, last := range []uint64{0, 2, 4, 99} {
		_, err := l.Append(t.Context(), []byte("x"), last)
		wantErr(t, err, ErrWrongSequence)
		var e *SequenceError
		if !errors.As(err, &e) || *e != (SequenceError{Expected: last, Actual: 3}) {
			t.Fatalf("error %+v", e)
		}
	}
	wantBounds(t, l, 1, 3)
	if n := must[uint64](t)(l.Bytes(t.Context())); n == 0 {
		t.Fatal("no bytes")
	}
}

func TestAppendSizes(t *testing.T) {
	l := newLog(t, openBus(t))
	for i, size := range []int{0, 1, 60 << 10, MessageBytesMax} {
		data := bytes.Repeat([]byte{byte(i + 1)}, size)
		seq := must[uint64](t)(l.Append(t.Context(), data, uint64(i)))
		if got := must[[]byte](t)(l.Get(t.Context(), seq)); !bytes.Equal(got, data) {
			t.Fatalf("size %d: got %d bytes", size, len(got))
		}
	}
	_, err := l.Append(t.Context(), make([]byte, MessageBytesMax+1), 4)
	wantErr(t, err, ErrTooBig)
	n := 0
	if err := l.Read(t.Context(), 1, 4, func(uint64, []byte) error { n++; return nil }); err != nil || n != 4 {
		t.Fatalf("read %d: %v", n, err)
	}
}

func TestRacingAppendersHaveOneWinner(t *testing.T) {
	b := openBus(t)
	handles := []*Log{newLog(t, b), newLog(t, b), newLog(t, b)}
	for last := range uint64(50) {
		errs := make([]error, len(handles))
		var wg sync.WaitGroup
		for i, l := range handles {
			wg.Go(func() { _, errs[i] = l.Append(t.Context(), body(uint64(i)), last) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantErr(t, err, ErrWrongSequence)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d winners: %v", last, won, errs)
		}
	}
	wantBounds(t, handles[0], 1, 50)
}

// A stream which does not answer stands for a lost answer: the message is there.
func TestAppendWithoutAnAnswerIsUnknown(t *testing.T) {
	b := openBus(t, func(c *Config) { c.AnswerWait = 100 * time.Millisecond })
	mute := logConfig("LOG_l", "log.l")
	mute.NoAck = true
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), mute))
	l := newLog(t, b)
	_, err := l.Append(t.Context(), []byte("x"), 0)
	wantErr(t, err, ErrUnknown)
	wantBounds(t, l, 1, 1)

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = l.Append(ctx, []byte("x"), 1)
	wantErr(t, err, ErrUnknown)
	wantErr(t, err, context.DeadlineExceeded)

	_, err = l.Append(ctx, []byte("x"), 2) // over before it was sent
	wantErr(t, err, context.DeadlineExceeded)
	if errors.Is(err, ErrUnknown) {
		t.Fatal("nothing was sent, and yet the outcome is unknown")
	}
}

func TestFullEngineRefusesAndRecovers(t *testing.T) {
	b := openBus(t, func(c *Config) { c.StoreBytesMax = 1 << 20 })
	l := newLog(t, b)
	var last uint64
	for {
		seq, err := l.Append(t.Context(), make([]byte, 64<<10), last)
		if err != nil {
			wantErr(t, err, ErrFull)
			break
		}
		last = seq
	}
	wantBounds(t, l, 1, last)
	must[[]byte](t)(l.Get(t.Context(), 1))
	if err := l.Trim(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	must[uint64](t)(l.Append(t.Context(), []byte("x"), last))
}

func TestRead(t *testing.T) {
	l := newLog(t, openBus(t))
	const n = pullMessages + 10 // more than one pull
	fillFast(t, l, n, body)
	if err := l.Trim(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	wantBounds(t, l, 5, n)
	for _, c := range []struct {
		name     string
		from, to uint64
		want     []uint64
		err      error
	}{
		{"all", 5, n, span(5, n), nil},
		{"some", 7, 9, span(7, 9), nil},
		{"one", n, n, span(n, n), nil},
		{"none", 9, 8, nil, nil},
		{"from before the trim", 4, 9, nil, ErrGap},
		{"from zero", 0, 9, nil, ErrGap},
		{"all trimmed", 1, 4, nil, ErrGap},
		{"over the end", n - 1, n + 2, span(n-1, n), ErrGap},
		{"behind the end", n + 1, n + 2, nil, ErrGap},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readAll(t, l, c.from, c.to)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	t.Run("own error", func(t *testing.T) {
		stop := errors.New("stop")
		wantErr(t, l.Read(t.Context(), 5, n, func(uint64, []byte) error { return stop }), stop)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := l.Read(ctx, 5, n, func(uint64, []byte) error { cancel(); return nil })
		wantErr(t, err, context.Canceled)
	})
	eventually(t, "all consumers are gone", func() bool {
		return must[*jetstream.StreamInfo](t)(l.stream.Info(t.Context())).State.Consumers == 0
	})
}

func span(from, to uint64) (s []uint64) {
	for ; from <= to; from++ {
		s = append(s, from)
	}
	return s
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	l := newLog(t, b)
	trim := func(before uint64) {
		t.Helper()
		if err := l.Trim(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	trim(7) // an empty log has nothing to drop, and starts at 1 still
	fill(t, l, 6)
	trim(0)
	trim(1)
	wantBounds(t, l, 1, 6)
	trim(3)
	trim(2)
	wantBounds(t, l, 3, 6)
	_, err := l.Get(t.Context(), 2)
	wantErr(t, err, ErrMissing)
	_, err = l.Get(t.Context(), 0)
	wantErr(t, err, ErrMissing)
	_, err = l.Get(t.Context(), 7)
	wantErr(t, err, ErrMissing)
	trim(100)
	wantBounds(t, l, 7, 6)
	closeBus(t, b)

	b = openAt(t, dir)
	defer closeBus(t, b)
	l = newLog(t, b)
	wantBounds(t, l, 7, 6)
	if seq := must[uint64](t)(l.Append(t.Context(), nil, 6)); seq != 7 {
		t.Fatalf("sequence %d", seq)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	fill(t, newLog(t, b), 20)
	table := must[*Table](t)(b.Table(t.Context(), "k", true))
	must[[]Result](t)(table.Put(t.Context(), []Row{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}))
	archive := must[*Archive](t)(b.Archive(t.Context(), "o", true))
	putObject(t, archive, "x", []byte("object"))
	closeBus(t, b)

	b = openAt(t, dir)
	defer closeBus(t, b)
	l := must[*Log](t)(b.Log(t.Context(), "l", false))
	got, err := readAll(t, l, 1, 20)
	if diff := cmp.Diff(span(1, 20), got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	table = must[*Table](t)(b.Table(t.Context(), "k", false))
	want := []Row{{Key: "a", Value: []byte("1"), Revision: 1}, {Key: "b", Value: []byte("2"), Revision: 2}}
	if diff := cmp.Diff(want, rowsOf(t, table)); diff != "" {
		t.Fatal(diff)
	}
	archive = must[*Archive](t)(b.Archive(t.Context(), "o", false))
	if got := readObject(t, archive, "x"); string(got) != "object" {
		t.Fatalf("got %q", got)
	}
}

func TestExistingLogKeepsItsConfiguration(t *testing.T) {
	b := openBus(t)
	c := logConfig("LOG_l", "log.l")
	c.MaxMsgs = 7
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), c))
	l := newLog(t, b)
	if got := l.stream.CachedInfo().Config.MaxMsgs; got != 7 {
		t.Fatalf("MaxMsgs %d", got)
	}
}

func TestStreamWhichDoesNotSyncIsRefused(t *testing.T) {
	b := openBus(t)
	c := logConfig("LOG_async", "log.async")
	c.PersistMode = jetstream.AsyncPersistMode
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), c))
	_, err := b.Log(t.Context(), "async", true)
	wantErr(t, err, errNotDurable)

	c = logConfig("LOG_memory", "log.memory")
	c.Storage = jetstream.MemoryStorage
	must[jetstream.Stream](t)(b.bulk.js.CreateStream(t.Context(), c))
	_, err = b.Log(t.Context(), "memory", true)
	wantErr(t, err, errNotDurable)
}

func TestParseAck(t *testing.T) {
	for _, c := range []struct {
		in   string
		want ack
		bad  bool
	}{
		{in: `{"stream":"LOG_l", "seq":12}`, want: ack{Seq: 12}},
		{in: `{"stream":"LOG_l", "domain":"eu", "seq":3}`, want: ack{Seq: 3}},
		{in: `{"stream":"s","seq":9,"batch":"b","count":4}`, want: ack{Seq: 9, Count: 4}},
		{in: `{"stream":"s","seq":18446744073709551615}`, want: ack{Seq: 1<<64 - 1}},
		{in: `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"s","seq":0}`,
			want: ack{Error: &apiError{Code: 400, ErrCode: codeWrongSequence, Description: "wrong last sequence: 5"}}},
		{in: `{"stream":"s","seq":0}`, bad: true},
		{in: `{"stream":"s","seq":}`, bad: true},
		{in: `{"stream":"s"}`, bad: true},
		{in: `nonsense`, bad: true},
		{in: ``, bad: true},
	} {
		got, err := parseAck([]byte(c.in))
		if c.bad {
			wantErr(t, err, ErrUnknown)
			continue
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.in, err, diff)
		}
	}
}
