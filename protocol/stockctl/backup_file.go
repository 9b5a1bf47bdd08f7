package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	backupMagic         = protocol.BackupMagic
	backupHeaderByteMax = 64 << 10
)

type backupHeader protocol.BackupHeader

// check also keeps out what would do harm where it is printed as part of a command.
func (h *backupHeader) check() error {
	if err := errors.Join(checkRegion("region", h.Region), checkRegion("node", h.Node)); err != nil {
		return err
	}
	if h.Shards < 1 || len(h.Seqs) != h.Shards {
		return fmt.Errorf("%d shards, but the rounds of %d", h.Shards, len(h.Seqs))
	}
	return nil
}

// rounds lists how far each shard was.
func (h *backupHeader) rounds() string {
	texts := make([]string, len(h.Seqs))
	for i, seq := range h.Seqs {
		texts[i] = fmt.Sprint(seq)
	}
	return strings.Join(texts, ",")
}

// backupSummary is what a person, or a script, is told of a backup.
type backupSummary struct {
	File  string `json:"file,omitzero"`
	Bytes int64  `json:"bytes"`
	backupHeader
}

func (s *backupSummary) text() string {
	return fmt.Sprintf("%s, region %s, %s, up to round %s, taken by node %s at %s", byteText(s.Bytes), s.Region,
		shardText(s.Shards), s.rounds(), s.Node, timeText(s.TakenAt))
}

func shardText(n int) string {
	if n == 1 {
		return "1 shard"
	}
	return fmt.Sprintf("%d shards", n)
}

func byteText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, units := float64(n)/1000, "kMGTPE"
	for f >= 999.95 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	return fmt.Sprintf("%.1f %cB", f, units[0])
}

var errNoBackup = errors.New("not a backup of stockmesh, or not of a version that this stockctl knows")

// backupCheck is written a backup and says whether it is one. Only after end has found
// the digest right is anything of it to be believed.
type backupCheck struct {
	size   int64
	head   []byte // until both lines are there
	header *backupHeader
	sum    hash.Hash
	tail   []byte // the last bytes so far, which the sum leaves out: they may be the digest
}

func newBackupCheck() *backupCheck { return &backupCheck{sum: sha256.New()} }

// Write implements io.Writer. It fails early where the beginning is wrong, so that what
// is no backup isn't copied at length.
func (c *backupCheck) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	if c.header == nil {
		if err := c.readHead(p); err != nil {
			return 0, err
		}
	}
	c.tail = append(c.tail, p...)
	if n := len(c.tail) - sha256.Size; n > 0 {
		c.sum.Write(c.tail[:n])
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	return len(p), nil
}

func (c *backupCheck) readHead(p []byte) error {
	c.head = append(c.head, p[:min(len(p), backupHeaderByteMax)]...)
	if n := min(len(c.head), len(backupMagic)); string(c.head[:n]) != backupMagic[:n] {
		return errNoBackup
	}
	if len(c.head) < len(backupMagic) {
		return nil
	}
	line, _, found := bytes.Cut(c.head[len(backupMagic):], []byte{'\n'})
	if !found && len(c.head) < backupHeaderByteMax {
		return nil
	}
	if !found {
		return fmt.Errorf("%w: its header has no end", errNoBackup)
	}
	var h backupHeader
	err := protocol.UnmarshalJSON(line, &h)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		// Not wrapped: an unexpected end of JSON is none of what is read from.
		return fmt.Errorf("%w: header: %v", errNoBackup, err)
	}
	c.header, c.head = &h, nil
	return nil
}

// end says what was written, if it was a whole backup.
func (c *backupCheck) end() (backupSummary, error) {
	if c.header == nil {
		return backupSummary{}, fmt.Errorf("not a backup, or cut short: it ends after %s", byteText(c.size))
	}
	if !bytes.Equal(c.tail, c.sum.Sum(nil)) {
		return backupSummary{}, fmt.Errorf("the backup is damaged or cut short: its digest does not match after %s", byteText(c.size))
	}
	return backupSummary{Bytes: c.size, backupHeader: *c.header}, nil
}

// copyBackup copies a backup and checks it on the way. After an error what was written
// is no backup.
func copyBackup(from io.Reader, to ...io.Writer) (backupSummary, error) {
	c := newBackupCheck()
	if _, err := io.Copy(io.MultiWriter(append([]io.Writer{c}, to...)...), from); err != nil {
		return backupSummary{}, err
	}
	return c.end()
}

// checkBackup reads a whole file and leaves it at its beginning.
func (a *app) checkBackup(ctx context.Context, f *os.File, size int64) (backupSummary, error) {
	bar := newByteBar(a.errOut, "verify", size)
	defer bar.end()
	from := interruptible(ctx, f)
	defer from.Close()
	sum, err := copyBackup(from, bar)
	if err != nil {
		return sum, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return sum, err
}
