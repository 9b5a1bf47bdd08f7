package powerfs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// mountFor mounts a disk for a test.
func mountFor(t *testing.T, c Config) (*Disk, string) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("nothing is mounted here: %v", err)
	}
	d, dir := New(c), t.TempDir()
	m, err := NewMount(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		m.Wait()
		if mounted(dir) {
			t.Error("it is still mounted")
		}
	})
	if !mounted(dir) {
		t.Fatal("it is not mounted")
	}
	return d, dir
}

// TestFiles uses a mounted disk as programs do, through a power cut.
func TestFiles(t *testing.T) {
	d, dir := mountFor(t, Config{})
	sub, text := filepath.Join(dir, "some", "where"), bytes.Repeat([]byte("stock"), 50_000)
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(sub, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(sub, "a"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), os.Rename(filepath.Join(sub, "a"), filepath.Join(dir, "c")), syncDir(dir)); err != nil {
		t.Fatal(err)
	}
	cutPower(d)
	got, err := os.ReadFile(filepath.Join(dir, "c"))
	if err != nil || string(got) != string(text)+"end" {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	info, err := os.Stat(filepath.Join(dir, "c"))
	if err != nil || info.Size() != int64(len(got)) || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	left, err := os.ReadDir(sub)
	if err != nil || len(left) != 1 || left[0].Name() != "b" {
		t.Errorf("%v, %v", left, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "some")); err != nil {
		t.Error(err)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func TestOpenedForSyncedWrites(t *testing.T) {
	d, dir := mountFor(t, Config{Seed: 1})
	for _, flag := range []int{os.O_SYNC, syscall.O_DSYNC} {
		f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|flag, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("synced"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		cutPower(d)
		if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "synced" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

func TestErrorsReachPrograms(t *testing.T) {
	d, dir := mountFor(t, Config{})
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	d.FailSync(syscall.EIO)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	if err := syncDir(dir); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync of the directory: %v", err)
	}
	d.LosePower()
	if _, err := os.ReadDir(dir); !errors.Is(err, syscall.EIO) {
		t.Errorf("without power: %v", err)
	}
	d.PowerOn()
	if err := syncDir(dir); err != nil {
		t.Error(err)
	}
}

// TestMaps: pages that are mapped for writing would never be seen here.
func TestMaps(t *testing.T) {
	_, dir := mountFor(t, Config{})
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mapped"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := syscall.Mmap(int(f.Fd()), 0, 6, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a shared mapping: %v", err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, 6, syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "mapped" {
		t.Errorf("%q", b)
	}
	if err := syscall.Munmap(b); err != nil {
		t.Error(err)
	}
}

// TestDetached takes a disk away from a program that uses it.
func TestDetached(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("nothing is mounted here: %v", err)
	}
	dir := t.TempDir()
	m, err := NewMount(dir, New(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Close(ctx); err != nil || mounted(dir) {
		t.Errorf("closed while in use: %v", err)
	}
	if err := errors.Join(f.Close(), Detach(dir)); err != nil {
		t.Error(err)
	}
	m.Wait()
}
