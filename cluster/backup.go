package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// A backup is one file: protocol.BackupMagic, the header, then for each shard its snapshot
// in chunks and the rounds that were committed while it was written, then revokedMark and
// what is revoked, as it stands in its bucket, and a SHA-256 of all that. Chunks, rounds
// and revocations begin with their length; length zero ends them. Files of before there
// was a revokedMark end behind the shards.

// revokedMark begins the part of a backup that holds what is revoked.
const revokedMark = "revocations\n"

// Backup writes the region's whole state as this node has it: items, reservations, the
// keys that are remembered, and what is revoked. Selling goes on meanwhile; what is committed after the
// beginning may or may not be in it. With several shards that may be true of an order's
// parts one by one: keep clients away while a backup is taken that shall be used.
func (c *Cluster) Backup(ctx context.Context, w io.Writer) error {
	sum := sha256.New()
	b := backupWriter{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)}
	header := protocol.BackupHeader{
		Region: c.config.Region, Shards: len(c.shards), Node: c.config.Node,
		Incarnation: c.dir.Incarnation, TakenAt: protocol.TimeOf(c.config.Clock()),
	}
	for _, s := range c.shards {
		header.Seqs = append(header.Seqs, s.replica.seq())
	}
	b.write([]byte(protocol.BackupMagic))
	b.write(append(protocol.AppendJSON(nil, &header), '\n'))
	for _, s := range c.shards {
		if err := b.shard(ctx, s); err != nil {
			return fmt.Errorf("back up shard %d: %w", s.n, err)
		}
	}
	if err := b.revoked(c.revoked.list()); err != nil {
		return fmt.Errorf("back up revocations: %w", err)
	}
	if err := b.w.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// backupWriter keeps the first error.
type backupWriter struct {
	w   *bufio.Writer
	err error
}

func (b *backupWriter) write(p []byte) {
	if b.err == nil {
		_, b.err = b.w.Write(p)
	}
}

func (b *backupWriter) chunk(p []byte) error {
	b.write(binary.AppendUvarint(nil, uint64(len(p))))
	b.write(p)
	return b.err
}

func (b *backupWriter) shard(ctx context.Context, s *shard) error {
	from, err := s.replica.snapshot(b.chunk)
	if err != nil {
		return err
	}
	_ = b.chunk(nil)
	to := s.replica.seq()
	err = s.log.Read(ctx, from+1, to, func(_ uint64, round []byte) error { return b.chunk(round) })
	if err != nil {
		return err
	}
	return b.chunk(nil)
}

func (b *backupWriter) revoked(list []Revocation) error {
	b.write([]byte(revokedMark))
	for i := range list {
		_ = b.chunk(list[i].value())
	}
	return b.chunk(nil)
}

// restoreFile is the backup that a new data directory begins with; `stockctl restore`
// puts it there.
const restoreFile = "restore.stockmesh"

// backup is one that was read and found whole.
type backup struct {
	protocol.BackupHeader
	states []*ledger.State

	revoked []Revocation
	early   bool // of a version that wrote no revocations
}

// readBackup reads a backup, nil where there is none.
func readBackup(name string) (*backup, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	b, err := parseBackup(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", name, err)
	}
	return b, nil
}

// parseBackup reads a backup of so many bytes. Nothing of it is returned unless all of
// it is right.
func parseBackup(f io.Reader, size int64) (*backup, error) {
	content := size - sha256.Size
	if content < int64(len(protocol.BackupMagic)) {
		return nil, errors.New("not a backup, or cut short")
	}
	sum := sha256.New()
	r := &backupReader{r: bufio.NewReaderSize(io.TeeReader(io.LimitReader(f, content), sum), 64<<10)}
	b, err := r.backup()
	if err == nil {
		err = r.end(f, sum)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

type backupReader struct{ r *bufio.Reader }

// chunkBytesMax is above every chunk and every round.
const chunkBytesMax = 16 << 20

// backup reads everything but the digest.
func (r *backupReader) backup() (*backup, error) {
	magic := make([]byte, len(protocol.BackupMagic))
	if _, err := io.ReadFull(r.r, magic); err != nil || string(magic) != protocol.BackupMagic {
		return nil, errors.New("not a backup of a version that can be read")
	}
	line, err := r.r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	b := &backup{}
	if err := protocol.UnmarshalJSON(line, &b.BackupHeader); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if b.Shards < 1 || b.Shards > ShardsMax {
		return nil, fmt.Errorf("header: %d shards", b.Shards)
	}
	for n := range b.Shards {
		state, err := r.shard()
		if err != nil {
			return nil, fmt.Errorf("shard %d: %w", n, err)
		}
		if state.Region() != b.Region || state.Shard() != n {
			return nil, fmt.Errorf("shard %d: it holds region %s, shard %d", n, state.Region(), state.Shard())
		}
		b.states = append(b.states, state)
	}
	return b, r.revoked(b)
}

// revoked reads what is revoked.
func (r *backupReader) revoked(b *backup) error {
	if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
		b.early = true
		return nil
	}
	mark := make([]byte, len(revokedMark))
	if _, err := io.ReadFull(r.r, mark); err != nil || string(mark) != revokedMark {
		return errors.New("behind the shards is something that this version can't read")
	}
	for {
		data, err := r.chunk()
		if err != nil || len(data) == 0 {
			return err
		}
		var stored storedRevocation
		err = protocol.UnmarshalJSON(data, &stored)
		rev, wrong := stored.revocation()
		if err = errors.Join(err, wrong); err != nil {
			return fmt.Errorf("revocation %d: %w", len(b.revoked)+1, err)
		}
		b.revoked = append(b.revoked, rev)
	}
}

func (r *backupReader) shard() (*ledger.State, error) {
	snapshot := &chunks{r: r}
	state, err := ledger.Load(snapshot)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if n, err := io.Copy(io.Discard, snapshot); err != nil || n > 0 {
		return nil, fmt.Errorf("snapshot: %d bytes behind its end: %w", n, err)
	}
	for {
		data, err := r.chunk()
		if err != nil {
			return nil, err
		}
		if len(data) == 0 {
			if state.Settled() > state.Seq() {
				return nil, fmt.Errorf("its rounds end at %d, %d are needed", state.Seq(), state.Settled())
			}
			return state, nil
		}
		round, err := ledger.Decode(data)
		if err != nil {
			return nil, err
		}
		if _, err := state.Apply(round, state.Seq()+1); err != nil {
			return nil, err
		}
	}
}

// chunk returns the next chunk, empty at the end of a run of them.
func (r *backupReader) chunk() ([]byte, error) {
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return nil, fmt.Errorf("cut short: %w", err)
	}
	if n > chunkBytesMax {
		return nil, fmt.Errorf("a chunk of %d bytes", n)
	}
	// Grown as it is read: a wrong length must not cost memory.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r.r, int64(n)); err != nil {
		return nil, fmt.Errorf("cut short: %w", err)
	}
	return b.Bytes(), nil
}

// end checks that nothing follows but the right digest.
func (r *backupReader) end(f io.Reader, sum hash.Hash) error {
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("bytes behind the end")
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	if !bytes.Equal(want, sum.Sum(nil)) {
		return errors.New("the digest does not match: the file is damaged")
	}
	return nil
}

// chunks reads a run of chunks as one stream.
type chunks struct {
	r    *backupReader
	rest []byte
	done bool
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 && !c.done {
		var err error
		if c.rest, err = c.r.chunk(); err != nil {
			return 0, err
		}
		c.done = len(c.rest) == 0
	}
	if c.done {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
