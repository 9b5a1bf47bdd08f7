package helm_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dockerfile is a small reading of one, enough for node/Dockerfile: whole-line comments,
// lines continued by a backslash, stages, and of the instructions those named below. It
// knows no heredocs, no parser directives and no quotes but those of LABEL.
type dockerfile struct {
	global []instruction // ARGs above the first stage
	stages []*imageStage
}

type imageStage struct {
	name, from string
	list       []instruction
}

// instruction has its flags (--from=build) and what follows them.
type instruction struct {
	name  string
	flags map[string]string
	rest  string
}

var knownInstructions = []string{"ARG", "ENV", "COPY", "RUN", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "LABEL"}

func readDockerfile(t *testing.T) *dockerfile {
	t.Helper()
	content, err := os.ReadFile("../node/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	d := new(dockerfile)
	for _, line := range instructionLines(string(content)) {
		in := newInstruction(line)
		switch {
		case in.name == "FROM":
			words := strings.Fields(in.rest)
			s := &imageStage{from: words[0]}
			if len(words) == 3 {
				s.name = words[2]
			}
			d.stages = append(d.stages, s)
		case !slices.Contains(knownInstructions, in.name):
			t.Fatalf("the test can't read %s", line)
		case len(d.stages) == 0:
			d.global = append(d.global, in)
		default:
			s := d.stages[len(d.stages)-1]
			s.list = append(s.list, in)
		}
	}
	if len(d.stages) != 2 {
		t.Fatalf("%d stages, want one that builds and the image", len(d.stages))
	}
	return d
}

func instructionLines(content string) (list []string) {
	var open string
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			open += rest + " "
			continue
		}
		list = append(list, open+line)
		open = ""
	}
	return list
}

func newInstruction(line string) instruction {
	name, rest, _ := strings.Cut(line, " ")
	in := instruction{name: name, flags: make(map[string]string), rest: strings.TrimSpace(rest)}
	for strings.HasPrefix(in.rest, "--") {
		flag, rest, _ := strings.Cut(in.rest, " ")
		key, value, _ := strings.Cut(flag, "=")
		in.flags[key], in.rest = value, strings.TrimSpace(rest)
	}
	return in
}

// all returns what follows each instruction of that name.
func (s *imageStage) all(name string) (list []string) {
	for _, in := range s.list {
		if in.name == name {
			list = append(list, in.rest)
		}
	}
	return list
}

// environment is what the stage's ENV lines set.
func (s *imageStage) environment() (list []string) {
	for _, line := range s.all("ENV") {
		list = append(list, strings.Fields(line)...)
	}
	return list
}

// command is the JSON array of an ENTRYPOINT, or of a CMD as in HEALTHCHECK.
func jsonCommand(t *testing.T, rest string) (words []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(strings.TrimPrefix(rest, "CMD ")), &words); err != nil {
		t.Fatalf("%s: %v", rest, err)
	}
	return words
}

// imageBuilder goes through the building stage on this machine: COPY lines of the context into
// a folder that stands for the stage's root, RUN lines by the shell there. The modules are
// those of this machine, so the line that fetches them is left out.
type imageBuilder struct {
	root string
	env  []string
	work string // WORKDIR

	// checkout makes the sources a checkout of git: that must not show in what is built.
	checkout bool
}

// rooted are the places outside of WORKDIR that the lines name.
var rooted = regexp.MustCompile(`(^|\s)(/out|/sbom)\b`)

func (b *imageBuilder) build(t *testing.T, s *imageStage, args map[string]string) {
	t.Helper()
	ignored := readIgnored(t)
	// This machine's own flags, which may be in a file of the go command's, aren't those of
	// the base image. This one is the default and only there to stand before them.
	b.env = append(os.Environ(), "GOFLAGS=-mod=readonly")
	b.env = append(b.env, s.environment()...)
	for _, in := range s.list {
		switch in.name {
		case "WORKDIR":
			b.work = filepath.Join(b.root, in.rest)
			noError(t, os.MkdirAll(b.work, 0o755))
		case "ARG":
			b.env = append(b.env, in.rest+"="+args[in.rest])
		case "COPY":
			sources, to := sourcesOf(in.rest)
			for _, source := range sources {
				copyContext(t, ignored, source, filepath.Join(b.work, destination(source, to, "..")))
			}
		case "RUN":
			if !strings.Contains(in.rest, "go mod download") {
				b.run(t, in.rest)
			}
		}
	}
}

func (b *imageBuilder) run(t *testing.T, line string) {
	t.Helper()
	if b.checkout && strings.Contains(line, "go build") {
		b.commit(t)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", rooted.ReplaceAllString(line, "${1}"+b.root+"${2}"))
	cmd.Dir, cmd.Env = b.work, b.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("RUN %s: %v\n%s", line, err, out)
	}
}

func (b *imageBuilder) commit(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--allow-empty", "--message", "all"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = b.work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// assemble puts the image's own files together from what was built. Only root may give
// them to another user.
func (b *imageBuilder) assemble(t *testing.T, s *imageStage) (root string) {
	t.Helper()
	root = t.TempDir()
	noError(t, os.Chmod(root, 0o755))
	for _, in := range s.list {
		if in.name != "COPY" {
			continue
		}
		sources, to := sourcesOf(in.rest)
		for _, source := range sources {
			from := filepath.Join(b.root, source)
			if !rooted.MatchString(source) {
				from = source // a file of the base image; this machine's own stands in for it
			}
			target := filepath.Join(root, destination(from, to, ""))
			copyTree(t, from, target)
			if owner, ok := in.flags["--chown"]; ok && os.Geteuid() == 0 {
				uid, gid := ids(t, owner)
				noError(t, os.Chown(target, uid, gid))
			}
		}
	}
	return root
}

func sourcesOf(rest string) (sources []string, to string) {
	words := strings.Fields(rest)
	return words[:len(words)-1], words[len(words)-1]
}

// destination is where a COPY puts a source: a file goes into a folder, a folder's content
// into the folder named.
func destination(source, to, base string) string {
	info, err := os.Stat(filepath.Join(base, source))
	if err == nil && !info.IsDir() && strings.HasSuffix(to, "/") {
		return to + path.Base(source)
	}
	return to
}

func ids(t *testing.T, owner string) (uid, gid int) {
	t.Helper()
	u, g, _ := strings.Cut(owner, ":")
	uid, err := strconv.Atoi(u)
	gid, err2 := strconv.Atoi(g)
	noError(t, errors.Join(err, err2))
	return uid, gid
}

// ignoring is .dockerignore, of which * and a leading **/ are known. The last line that
// matches a path or a folder above it decides.
type ignoring []string

func readIgnored(t *testing.T) ignoring {
	t.Helper()
	content, err := os.ReadFile("../.dockerignore")
	noError(t, err)
	return instructionLines(string(content))
}

func (list ignoring) out(t *testing.T, name string) (out bool) {
	t.Helper()
	for _, line := range list {
		pattern, back := strings.CutPrefix(line, "!")
		for p := name; p != "."; p = path.Dir(p) {
			against := p
			rest, anywhere := strings.CutPrefix(pattern, "**/")
			if anywhere {
				against = path.Base(p)
			}
			matches, err := path.Match(rest, against)
			noError(t, err)
			if matches {
				out = !back
			}
		}
	}
	return out
}

// copyContext copies from the top of the repository what .dockerignore leaves in.
func copyContext(t *testing.T, ignored ignoring, source, to string) {
	t.Helper()
	if ignored.out(t, source) {
		t.Fatalf("COPY %s: .dockerignore leaves it out", source)
	}
	noError(t, filepath.WalkDir(filepath.Join("..", source), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel("..", name)
		if err != nil || ignored.out(t, filepath.ToSlash(rel)) {
			return err
		}
		within, err := filepath.Rel(source, rel)
		if err != nil {
			return err
		}
		return copyFile(name, filepath.Join(to, within))
	}))
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	noError(t, filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return copyFile(name, filepath.Join(to, rel))
	}))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
