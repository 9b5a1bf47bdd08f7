package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestASmallDisk(t *testing.T) {
	if err := tryDisk(); err != nil {
		t.Skipf("disks can't be mounted here: %v", err)
	}
	f, err := makeDisk(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	s := &soakTrial{disks: disks{"n": f}}
	defer s.disks.close()
	n := &node{name: "n", log: filepath.Join(t.TempDir(), "n.log")}
	write := func(name string) error {
		return os.WriteFile(filepath.Join(s.disks.path("n"), name), []byte("some text"), 0o644)
	}
	if err := write("before"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fill(n); err != nil {
		t.Fatal(err)
	}
	if err := write("full"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if err := os.Remove(filepath.Join(s.disks.path("n"), ballast)); err != nil {
		t.Fatal(err)
	}
	if err := write("after"); err != nil {
		t.Error(err)
	}
	if err := s.disks.save([]*node{n, {name: "other"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"before", "after"} {
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(n.log), "n-disk", name)); err != nil || string(b) != "some text" {
			t.Errorf("%s was kept as %q, %v", name, b, err)
		}
	}
}
