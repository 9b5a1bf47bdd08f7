package powerfs

import (
	"bytes"
	"errors"
	"maps"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// naive is what a test knows of a disk without pages and journals: all that was, since
// it was durable.
type naive struct {
	disk    *Disk
	files   map[*inode]*naiveFile
	trees   []tree // after each change of names; the first is durable
	ordered bool
}

type naiveFile struct {
	kept, now []byte
	versions  [][]byte // since kept, to tell which sectors may be there
}

// tree is what names lead to, by directory.
type tree [2]map[string]*inode

func (t tree) clone() tree { return tree{maps.Clone(t[0]), maps.Clone(t[1])} }

func (t tree) equal(u tree) bool { return maps.Equal(t[0], u[0]) && maps.Equal(t[1], u[1]) }

func newNaive(t *rapid.T, model Model) (*naive, [2]*inode) {
	d := New(Config{Model: model, Seed: rapid.Uint64().Draw(t, "seed")})
	var dirs [2]*inode
	for i, name := range []string{"a", "b"} {
		dir, err := d.create(d.root, name, true, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		dirs[i] = dir
	}
	d.Checkpoint()
	return &naive{disk: d, files: make(map[*inode]*naiveFile), ordered: model == Ordered, trees: []tree{{{}, {}}}}, dirs
}

func (m *naive) now() tree { return m.trees[len(m.trees)-1] }

// TestWhatAPowerCutLeaves does at random what programs do with files, cuts the power
// and looks whether what is left is one of the things that may be.
func TestWhatAPowerCutLeaves(t *testing.T) {
	for name, model := range map[string]Model{"ordered": Ordered, "POSIX": POSIX} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m, dirs := newNaive(t, model)
				for range rapid.IntRange(1, 4).Draw(t, "cuts") {
					for range rapid.IntRange(0, 25).Draw(t, "steps") {
						m.step(t, dirs)
					}
					m.cut(t, dirs)
				}
			})
		})
	}
}

func (m *naive) step(t *rapid.T, dirs [2]*inode) {
	name := rapid.SampledFrom([]string{"x", "y", "z"})
	side := rapid.IntRange(0, 1)
	from, what := side.Draw(t, "dir"), name.Draw(t, "name")
	n := m.now()[from][what]
	switch op := rapid.SampledFrom([]string{"create", "write", "write", "truncate", "fsync", "fsyncdir", "rename", "unlink"}).Draw(t, "op"); {
	case op == "create":
		made, err := m.disk.create(dirs[from], what, false, 0o644)
		if (err == nil) != (n == nil) {
			t.Fatalf("create: %v", err)
		}
		if err == nil {
			m.files[made] = &naiveFile{}
			m.change(func(t tree) { t[from][what] = made })
		}
	case op == "fsyncdir":
		changed := m.disk.changed[dirs[from]]
		if err := m.disk.fsync(dirs[from]); err != nil {
			t.Fatal(err)
		}
		if changed {
			m.syncNames(from)
		}
	case n == nil: // the others need a file
	case op == "write":
		b := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(1, 3*pageBytes).Draw(t, "bytes"))
		at := rapid.IntRange(0, 2*pageBytes).Draw(t, "at")
		if err := m.disk.write(n, b, int64(at), false, false); err != nil {
			t.Fatal(err)
		}
		m.files[n].set(func(now []byte) []byte {
			now = append(now, make([]byte, max(0, at+len(b)-len(now)))...)
			copy(now[at:], b)
			return now
		})
	case op == "truncate":
		size := rapid.IntRange(0, 4*pageBytes).Draw(t, "size")
		if err := m.disk.truncate(n, int64(size)); err != nil {
			t.Fatal(err)
		}
		m.files[n].set(func(now []byte) []byte { return append(now, make([]byte, max(0, size-len(now)))...)[:size] })
	case op == "fsync":
		changed := m.disk.changed[n]
		if err := m.disk.fsync(n); err != nil {
			t.Fatal(err)
		}
		f := m.files[n]
		f.kept, f.versions = f.now, nil
		if changed && m.ordered {
			m.trees = []tree{m.now()}
		}
	case op == "unlink":
		if err := m.disk.remove(dirs[from], what, false); err != nil {
			t.Fatal(err)
		}
		m.change(func(t tree) { delete(t[from], what) })
	case op == "rename":
		to, other := side.Draw(t, "to"), name.Draw(t, "new name")
		if err := m.disk.rename(dirs[from], what, dirs[to], other, false); err != nil {
			t.Fatal(err)
		}
		if m.now()[to][other] != n {
			m.change(func(t tree) { delete(t[from], what); t[to][other] = n })
		}
	}
	m.compare(t, dirs)
}

func (f *naiveFile) set(how func([]byte) []byte) {
	f.now = how(slices.Clone(f.now))
	f.versions = append(f.versions, f.now)
}

func (m *naive) change(how func(tree)) {
	next := m.now().clone()
	how(next)
	m.trees = append(m.trees, next)
}

// syncNames forgets what can't come back.
func (m *naive) syncNames(dir int) {
	if m.ordered {
		m.trees = []tree{m.now()}
		return
	}
	for i := range m.trees {
		m.trees[i][dir] = m.now()[dir]
	}
}

// compare looks whether all is read as it was written.
func (m *naive) compare(t *rapid.T, dirs [2]*inode) {
	for i, dir := range dirs {
		if !maps.Equal(dir.names.now, m.now()[i]) {
			t.Fatalf("%v in directory %d, want %v", dir.list(), i, slices.Sorted(maps.Keys(m.now()[i])))
		}
		for name, n := range m.now()[i] {
			if have := contentOf(n); !bytes.Equal(have, m.files[n].now) {
				t.Fatalf("%s has %d bytes, want %d, or they are others", name, len(have), len(m.files[n].now))
			}
		}
	}
}

func contentOf(n *inode) []byte {
	b := make([]byte, n.file.now.size)
	return b[:n.file.now.read(b, 0)]
}

// cut cuts the power and goes on from what is left.
func (m *naive) cut(t *rapid.T, dirs [2]*inode) {
	m.disk.LosePower()
	m.disk.PowerOn()
	left := tree{maps.Clone(dirs[0].names.now), maps.Clone(dirs[1].names.now)}
	for i := range left {
		if left[i] == nil {
			left[i] = map[string]*inode{}
		}
	}
	if m.ordered && !slices.ContainsFunc(m.trees, left.equal) {
		t.Fatalf("names that never were together: %v, %v", dirs[0].list(), dirs[1].list())
	}
	for i := range left {
		if !slices.ContainsFunc(m.trees, func(t tree) bool { return maps.Equal(t[i], left[i]) }) {
			t.Fatalf("names that never were together in directory %d: %v", i, dirs[i].list())
		}
		for name, n := range left[i] {
			m.files[n].check(t, name, contentOf(n))
		}
	}
	m.trees = []tree{left}
}

// check looks whether each sector is one that may be there, and takes what there is.
func (f *naiveFile) check(t *rapid.T, name string, have []byte) {
	if len(f.versions) == 0 && !bytes.Equal(have, f.kept) {
		t.Fatalf("%s was durable and has changed", name)
	}
	most, least := len(f.kept), min(len(f.kept), len(f.now))
	for _, v := range f.versions {
		most = max(most, len(v))
	}
	if len(have) > most || len(have) < least {
		t.Fatalf("%s has %d bytes, want %d to %d", name, len(have), least, most)
	}
	for at := 0; at < len(have); at += sectorBytes {
		sector := have[at:min(at+sectorBytes, len(have))]
		if !agrees(sector, f.kept, at) && !agrees(sector, f.now, at) {
			t.Fatalf("%s at %d: neither what was durable nor what was written", name, at)
		}
	}
	f.now, f.kept, f.versions = have, have, nil
}

// agrees reports whether the sector is that of a version, whose end is zeros for ever.
func agrees(sector, version []byte, at int) bool {
	whole := make([]byte, len(sector))
	if at < len(version) {
		copy(whole, version[at:])
	}
	return bytes.Equal(sector, whole)
}

func newFile(t *testing.T, d *Disk, name string, content string) *inode {
	t.Helper()
	n, err := d.create(d.root, name, false, 0o644)
	if err == nil {
		err = d.write(n, []byte(content), 0, false, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func cutPower(d *Disk) Loss {
	loss := d.LosePower()
	d.PowerOn()
	return loss
}

// TestReplacedWithCare writes a file as databases do: a new one, synced, renamed over
// the old one, and the directory synced.
func TestReplacedWithCare(t *testing.T) {
	for _, model := range []Model{Ordered, POSIX} {
		for seed := range uint64(50) {
			d := New(Config{Model: model, Seed: seed})
			for _, text := range []string{"old", "newer", "newest of all"} {
				fresh := newFile(t, d, "fresh", text)
				if err := errors.Join(d.fsync(fresh), d.rename(d.root, "fresh", d.root, "file", false), d.fsync(d.root)); err != nil {
					t.Fatal(err)
				}
				newFile(t, d, "scrap", "of no interest")
				cutPower(d)
				n, err := d.lookup(d.root, "file")
				if err != nil || string(contentOf(n)) != text {
					t.Fatalf("seed %d: %v, %q", seed, err, contentOf(n))
				}
				_ = d.remove(d.root, "scrap", false) // where it is left
			}
		}
	}
}

// TestReplacedWithoutCare leaves the syncs out: at times the file must be broken.
func TestReplacedWithoutCare(t *testing.T) {
	for _, model := range []Model{Ordered, POSIX} {
		broken := 0
		for seed := range uint64(50) {
			d := New(Config{Model: model, Seed: seed})
			if err := errors.Join(d.fsync(newFile(t, d, "file", "old")), d.fsync(d.root)); err != nil {
				t.Fatal(err)
			}
			newFile(t, d, "fresh", "new")
			if err := d.rename(d.root, "fresh", d.root, "file", false); err != nil {
				t.Fatal(err)
			}
			cutPower(d)
			n, err := d.lookup(d.root, "file")
			if err != nil {
				t.Fatalf("a rename has left none of both: %v", err)
			}
			if s := string(contentOf(n)); s != "old" && s != "new" {
				broken++
			}
		}
		if broken == 0 {
			t.Errorf("model %d: the new name never came without its content", model)
		}
	}
}

func TestNamesNeedTheirDirectory(t *testing.T) {
	gone := 0
	for seed := range uint64(50) {
		d := New(Config{Model: POSIX, Seed: seed})
		if err := d.fsync(newFile(t, d, "file", "x")); err != nil {
			t.Fatal(err)
		}
		cutPower(d)
		if _, err := d.lookup(d.root, "file"); err != nil {
			gone++
		}
	}
	if gone == 0 || gone == 50 {
		t.Errorf("gone %d times of 50", gone)
	}
}

func TestAllFates(t *testing.T) {
	old, fresh := bytes.Repeat([]byte{1}, 4*pageBytes), bytes.Repeat([]byte{2}, 4*pageBytes)
	var kept, dropped, torn int
	for seed := range uint64(100) {
		d := New(Config{Seed: seed})
		n := newFile(t, d, "file", string(old))
		_ = d.fsync(n)
		_ = d.write(n, fresh, 0, false, false)
		loss := cutPower(d)
		have := contentOf(n)
		switch count := bytes.Count(have, []byte{2}); {
		case len(have) != len(old) || int(loss.Bytes) != len(fresh)-count:
			t.Fatalf("%d bytes, %d of them new, %+v", len(have), count, loss)
		case count == len(fresh):
			kept++
		case count == 0:
			dropped++
		case count%pageBytes > 0:
			torn++
		}
	}
	if kept == 0 || dropped == 0 || torn == 0 {
		t.Errorf("kept %d, dropped %d, torn %d", kept, dropped, torn)
	}
}

func TestSyncThatFails(t *testing.T) {
	d := New(Config{})
	n := newFile(t, d, "file", "good")
	_ = d.fsync(n)
	d.FailSync(syscall.EIO)
	_ = d.write(n, []byte("bad"), 0, false, false)
	if err := d.fsync(n); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync: %v", err)
	}
	if err := d.write(n, []byte("bad"), 0, false, true); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write through: %v", err)
	}
	d.FailSync(nil)
	if err := d.fsync(n); err != nil || string(contentOf(n)) != "good" {
		t.Errorf("after a good sync: %v, %q", err, contentOf(n))
	}
	cutPower(d)
	if string(contentOf(n)) != "good" {
		t.Errorf("after a power cut: %q", contentOf(n))
	}
}

func TestWritesThrough(t *testing.T) {
	d := New(Config{})
	n := newFile(t, d, "file", "")
	if err := errors.Join(d.write(n, []byte("one "), 0, true, true), d.write(n, []byte("two"), 0, true, true)); err != nil {
		t.Fatal(err)
	}
	if loss := cutPower(d); loss != (Loss{}) || string(contentOf(n)) != "one two" {
		t.Errorf("%+v, %q", loss, contentOf(n))
	}
}

func TestLyingDisk(t *testing.T) {
	d := New(Config{Lies: true})
	n := newFile(t, d, "file", "old")
	d.Checkpoint()
	_ = d.write(n, []byte("new"), 0, false, true)
	if err := d.fsync(n); err != nil || string(contentOf(n)) != "new" {
		t.Fatalf("%v, %q", err, contentOf(n))
	}
	if loss := cutPower(d); loss.Bytes != 3 || string(contentOf(n)) != "old" {
		t.Errorf("%+v, %q", loss, contentOf(n))
	}
}

// TestFrozen has an operation wait for the end of the power.
func TestFrozen(t *testing.T) {
	d := New(Config{})
	n := newFile(t, d, "file", "x")
	d.Freeze()
	ended := make(chan error)
	go func() { ended <- d.fsync(n) }()
	select {
	case err := <-ended:
		t.Fatalf("carried out without power: %v", err)
	default:
	}
	if !d.Frozen() {
		t.Error("it is not frozen")
	}
	loss := d.LosePower()
	if err := <-ended; !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	if loss.Names > 1 {
		t.Errorf("%+v", loss)
	}
	if err := d.fsync(n); !errors.Is(err, syscall.EIO) {
		t.Errorf("while it is off: %v", err)
	}
	d.PowerOn()
	if err := d.fsync(n); err != nil {
		t.Error(err)
	}
}

// TestArmed has the power go in the moment of a sync.
func TestArmed(t *testing.T) {
	d := New(Config{})
	n := newFile(t, d, "file", "old")
	if err := d.fsync(n); err != nil {
		t.Fatal(err)
	}
	d.Arm()
	if err := errors.Join(d.fsync(n), d.write(n, []byte("new"), 0, false, false)); err != nil {
		t.Fatalf("before anything is to be synced: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- d.fsync(n) }()
	for !d.Frozen() {
		runtime.Gosched()
	}
	d.LosePower()
	if err := <-ended; !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}
