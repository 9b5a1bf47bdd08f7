package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

func refuseExisting(force bool, files ...string) error {
	for _, file := range files {
		_, err := os.Lstat(file)
		if err == nil && !force {
			return fmt.Errorf("%s is there already; --force replaces it", file)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writeWhole writes beside the file, syncs and renames: a node that reads the file
// at any moment, or after a crash, finds the old or the new text and no half of it.
func writeWhole(file string, text []byte, mode fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // 0600 from the start
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.Rename(f.Name(), file)
}

// partial is a file that takes long to write. It grows as FILE.partial, which anybody
// can see for what it is, and gets its name when it is whole and on the disk.
type partial struct {
	*os.File
	file  string
	own   fs.FileInfo
	force bool
}

// createPartial refuses what is there already, and even with force what isn't a file:
// the rename would put one in the place of a device.
func createPartial(file string, force bool) (*partial, error) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	if err := refuseExisting(force, file); err != nil {
		return nil, err
	}
	name := file + ".partial"
	if err := refuseExisting(force, name); err != nil {
		return nil, fmt.Errorf("%w; it is being written, or was left by one that was killed", err)
	}
	// Removed and made anew: an old one may be open to more than its owner.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	own, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &partial{f, file, own, force}, nil
}

// commit gives the file its name.
func (p *partial) commit() error {
	if err := p.Sync(); err != nil {
		return err
	}
	// Looked at again: it took long.
	if err := refuseExisting(p.force, p.file); err != nil {
		return err
	}
	if !p.isOurs() {
		return fmt.Errorf("%s was replaced meanwhile: does another backup write to it?", p.Name())
	}
	if err := p.Close(); err != nil {
		return err
	}
	if err := os.Rename(p.Name(), p.file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(p.file))
}

// isOurs reports whether the name still means the file that was made: another
// stockctl with --force takes it.
func (p *partial) isOurs() bool {
	named, err := os.Lstat(p.Name())
	return err == nil && os.SameFile(p.own, named)
}

// drop removes what was not committed; after commit it does nothing.
func (p *partial) drop() {
	ours := p.isOurs()
	p.Close()
	if ours {
		os.Remove(p.Name())
	}
}

// syncDir puts the names in a folder on the disk.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders can't be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// interruptible reads from r until ctx ends, even while r waits for a person or a pipe
// that says nothing. That read is left behind; the process is about to end.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	return out
}
