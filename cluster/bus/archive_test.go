package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func newArchive(t testing.TB, b *Bus) *Archive {
	t.Helper()
	return must[*Archive](t)(b.Archive(t.Context(), "snap", true))
}

func putObject(t testing.TB, a *Archive, name string, data []byte) {
	t.Helper()
	err := a.Put(t.Context(), name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readObject(t testing.TB, a *Archive, name string) []byte {
	t.Helper()
	r := must[io.ReadCloser](t)(a.Open(t.Context(), name))
	defer r.Close()
	return must[[]byte](t)(io.ReadAll(r))
}

func wantNames(t testing.TB, a *Archive, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, must[[]string](t)(a.Names(t.Context())), cmpEmpty); diff != "" {
		t.Fatal(diff)
	}
}

var cmpEmpty = cmp.Transformer("", func(s []string) string { return string(bytes.Join(toBytes(s), []byte("|"))) })

func toBytes(s []string) (b [][]byte) {
	for _, x := range s {
		b = append(b, []byte(x))
	}
	return b
}

// messages is how many messages the bucket holds: chunks and infos.
func messages(t testing.TB, a *Archive) uint64 {
	t.Helper()
	return must[*jetstream.StreamInfo](t)(a.stream.Info(t.Context())).State.Msgs
}

func noise(n int) []byte {
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(b)
	return b
}

func TestArchiveRoundTrip(t *testing.T) {
	a := newArchive(t, openBus(t))
	wantNames(t, a)
	for name, data := range map[string][]byte{
		"empty": {}, "small": []byte("x"), "chunk": noise(chunkBytes), "20 MB/ü": noise(20<<20 + 17),
	} {
		putObject(t, a, name, data)
		if got := readObject(t, a, name); !bytes.Equal(got, data) {
			t.Fatalf("%s: %d bytes came back of %d", name, len(got), len(data))
		}
	}
	wantNames(t, a, "20 MB/ü", "chunk", "empty", "small")
}

func TestArchiveReplaceAndDelete(t *testing.T) {
	a := newArchive(t, openBus(t))
	putObject(t, a, "x", noise(3*chunkBytes))
	putObject(t, a, "x", []byte("new"))
	if got := readObject(t, a, "x"); string(got) != "new" {
		t.Fatalf("got %q", got)
	}
	if n := messages(t, a); n != 2 {
		t.Fatalf("%d messages: old chunks are left", n)
	}
	if err := a.Delete(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, a.Delete(t.Context(), "x"), ErrMissing)
	_, err := a.Open(t.Context(), "x")
	wantErr(t, err, ErrMissing)
	wantNames(t, a)
	if n := messages(t, a); n != 0 {
		t.Fatalf("%d messages are left", n)
	}
	wantErr(t, a.Put(t.Context(), "", func(io.Writer) error { return nil }), ErrName)
}

func TestAbortedPutLeavesNothing(t *testing.T) {
	a := newArchive(t, openBus(t))
	putObject(t, a, "x", []byte("old"))
	boom := errors.New("boom")
	err := a.Put(t.Context(), "x", func(w io.Writer) error {
		if _, err := w.Write(noise(20 * chunkBytes)); err != nil {
			return err
		}
		return boom
	})
	wantErr(t, err, boom)

	ctx, cancel := context.WithCancel(t.Context())
	err = a.Put(ctx, "x", func(w io.Writer) error {
		_, err := w.Write(noise(5 * chunkBytes))
		cancel()
		return err
	})
	wantErr(t, err, context.Canceled)

	if got := readObject(t, a, "x"); string(got) != "old" {
		t.Fatalf("got %q", got)
	}
	if n := messages(t, a); n != 2 {
		t.Fatalf("%d messages: chunks are left", n)
	}
}

func TestCorruptedObjectIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *Archive){
		"chunk lost": func(t *testing.T, a *Archive) {
			if err := a.stream.DeleteMsg(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
		},
		"chunk changed": func(t *testing.T, a *Archive) {
			m := must[*jetstream.RawStreamMsg](t)(a.stream.GetMsg(t.Context(), 3))
			if err := a.stream.DeleteMsg(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			m.Data[7] ^= 1
			must[*jetstream.PubAck](t)(a.bus.bulk.js.PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Data: m.Data}))
		},
		"all lost": func(t *testing.T, a *Archive) {
			if err := a.purge(t.Context(), a.chunkSubject("*")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t, openBus(t))
			putObject(t, a, "x", noise(3*chunkBytes))
			spoil(t, a)
			r := must[io.ReadCloser](t)(a.Open(t.Context(), "x"))
			defer r.Close()
			_, err := io.Copy(io.Discard, r)
			wantErr(t, err, ErrCorrupt)
		})
	}
}

func TestReaderClosedEarly(t *testing.T) {
	a := newArchive(t, openBus(t))
	putObject(t, a, "x", noise(40*chunkBytes))
	r := must[io.ReadCloser](t)(a.Open(t.Context(), "x"))
	must[int](t)(io.ReadFull(r, make([]byte, 10)))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSweepRemovesOnlyOrphans(t *testing.T) {
	a := newArchive(t, openBus(t))
	putObject(t, a, "x", noise(2*chunkBytes))
	w := &chunkWriter{ctx: t.Context(), js: a.bus.bulk.js, subject: a.chunkSubject("orphan"), digest: sha256.New()}
	must[int](t)(w.Write(noise(3 * chunkBytes)))
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	if err := a.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, a); n != 3 {
		t.Fatalf("%d messages", n)
	}
	if got := readObject(t, a, "x"); len(got) != 2*chunkBytes {
		t.Fatalf("%d bytes", len(got))
	}
}

// Other programs read the bucket with a plain client, and the other way round.
func TestObjectsArePlainObjects(t *testing.T) {
	b := openBus(t)
	a := newArchive(t, b)
	store := must[jetstream.ObjectStore](t)(b.bulk.js.ObjectStore(t.Context(), a.bucket))
	data := noise(chunkBytes + 5)
	putObject(t, a, "ours", data)
	if got := must[[]byte](t)(store.GetBytes(t.Context(), "ours")); !bytes.Equal(got, data) {
		t.Fatal("the library read something else")
	}
	must[*jetstream.ObjectInfo](t)(store.PutBytes(t.Context(), "theirs", data))
	if got := readObject(t, a, "theirs"); !bytes.Equal(got, data) {
		t.Fatal("read something else")
	}
	if err := store.Delete(t.Context(), "theirs"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, a, "ours")
}
