package helm_test

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"go/version"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/stockmesh/stockmesh/node/server"
)

// imageLongFlag asks for what takes minutes: the image's programs for another processor. That
// ./node can be built for it at all is looked at on every change elsewhere.
const imageLongFlag = "STOCKMESH_IMAGE_LONG"

var imagePrograms = []string{"node", "stockctl"}

var imageStamps = map[string]string{"VERSION": "1.4.0", "COMMIT": "0123456789abcdef0123456789abcdef01234567", "DATE": "2026-11-21T10:20:30Z"}

func imageArguments(arch string) map[string]string {
	args := map[string]string{"TARGETOS": "linux", "TARGETARCH": arch}
	for name, v := range imageStamps {
		args[name] = v
	}
	return args
}

// TestImage does what node/Dockerfile says, short of an engine for it, and looks at what
// comes of it.
func TestImage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the image is one of Linux")
	}
	d := readDockerfile(t)
	first := &imageBuilder{root: t.TempDir()}
	first.build(t, d.stages[0], imageArguments(runtime.GOARCH))

	t.Run("static", func(t *testing.T) {
		for _, p := range imagePrograms {
			isStatic(t, filepath.Join(first.root, "out", p))
		}
	})
	t.Run("stamped", func(t *testing.T) {
		for _, p := range imagePrograms {
			out, err := exec.CommandContext(t.Context(), filepath.Join(first.root, "out", p), "version").CombinedOutput()
			if err != nil {
				t.Errorf("%s version: %v\n%s", p, err, out)
			}
			for name, v := range imageStamps {
				if !bytes.Contains(out, []byte(v)) {
					t.Errorf("%s version doesn't say its %s: %s", p, name, out)
				}
			}
		}
	})
	t.Run("says what is in it", func(t *testing.T) {
		for _, p := range imagePrograms {
			listsModules(t, filepath.Join(first.root, "out", p), filepath.Join(first.root, "out/usr/share/sbom", p+".cdx.json"))
		}
	})
	t.Run("reproducible", func(t *testing.T) {
		second := &imageBuilder{root: t.TempDir(), checkout: true}
		second.build(t, d.stages[0], imageArguments(runtime.GOARCH))
		sameFiles(t, filepath.Join(first.root, "out"), filepath.Join(second.root, "out"))
	})
	t.Run("runs", func(t *testing.T) { runsReadOnly(t, d.stages[1], first) })
}

func TestImageForAnotherProcessor(t *testing.T) {
	if os.Getenv(imageLongFlag) == "" {
		t.Skip("takes minutes; " + imageLongFlag + "=1 asks for it")
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	b := &imageBuilder{root: t.TempDir()}
	b.build(t, readDockerfile(t).stages[0], imageArguments(other))
	for _, p := range imagePrograms {
		isStatic(t, filepath.Join(b.root, "out", p))
		info, err := buildinfo.ReadFile(filepath.Join(b.root, "out", p))
		noError(t, err)
		if i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "GOARCH" }); i < 0 || info.Settings[i].Value != other {
			t.Errorf("%s: %v", p, info.Settings)
		}
	}
}

func isStatic(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	noError(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s wants a loader: %v", file, p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Errorf("%s has its symbols", file)
	}
}

// listsModules compares a list with what the go command says of the program.
func listsModules(t *testing.T, program, list string) {
	t.Helper()
	content, err := os.ReadFile(list)
	noError(t, err)
	var bom cdx.BOM
	noError(t, json.Unmarshal(content, &bom))
	got := make(map[string]bool)
	for _, c := range *bom.Components {
		got[c.Name+" "+c.Version] = true
	}
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", program).Output()
	noError(t, err)
	modules := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if words[0] != "dep" {
			continue
		}
		modules++
		if !got[words[1]+" "+words[2]] {
			t.Errorf("%s: %s %s is not in the list", program, words[1], words[2])
		}
	}
	if modules < 10 || len(got) != modules+1 { // and the standard library
		t.Errorf("%s: %d modules, %d in the list", program, modules, len(got))
	}
	if v := bom.Metadata.Component.Version; v != imageStamps["VERSION"] {
		t.Errorf("%s: version %q in the list", program, v)
	}
	if at := bom.Metadata.Timestamp; at != imageStamps["DATE"] {
		t.Errorf("%s: the list is of %q", program, at)
	}
}

// sameFiles compares all files below two folders, byte for byte.
func sameFiles(t *testing.T, first, second string) {
	t.Helper()
	files := 0
	noError(t, filepath.WalkDir(first, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(first, name)
		if err != nil {
			return err
		}
		one, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		other, err := os.ReadFile(filepath.Join(second, rel))
		if err != nil {
			return err
		}
		files++
		if !bytes.Equal(one, other) {
			t.Errorf("%s differs (%d and %d bytes)", rel, len(one), len(other))
		}
		return nil
	}))
	if files < 2*len(imagePrograms) {
		t.Errorf("only %d files", files)
	}
}

// TestImageCompiler: the Go that the Dockerfile names can build both modules.
func TestImageCompiler(t *testing.T) {
	global := readDockerfile(t).global
	i := slices.IndexFunc(global, func(in instruction) bool { return strings.HasPrefix(in.rest, "GOLANG=golang:") })
	if i < 0 {
		t.Fatal("no ARG GOLANG")
	}
	has := "go" + strings.TrimPrefix(global[i].rest, "GOLANG=golang:")
	if !version.IsValid(has) || strings.Count(has, ".") != 2 {
		t.Fatalf("%s is not one release of Go", has)
	}
	for _, file := range []string{"../go.mod", "go.mod"} {
		content, err := os.ReadFile(file)
		noError(t, err)
		line := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(content)
		if line == nil {
			t.Fatalf("%s names no Go", file)
		}
		if wants := "go" + string(line[1]); version.Compare(has, wants) < 0 || version.Lang(has) != version.Lang(wants) {
			t.Errorf("%s wants %s, the Dockerfile has %s", file, wants, has)
		}
	}
}

// TestImageConfig: what an engine and Kubernetes go by.
func TestImageConfig(t *testing.T) {
	s := readDockerfile(t).stages[1]
	if s.from != "scratch" {
		t.Errorf("made from %s: the programs need nothing", s.from)
	}
	for name, want := range map[string]string{
		"USER":       `^[1-9][0-9]+:[1-9][0-9]+$`, // runAsNonRoot can't judge names
		"ENTRYPOINT": `^\["/node"\]$`,
		"STOPSIGNAL": `^SIGTERM$`,
		"VOLUME":     `^/data$`,
		"ENV":        `^STOCKMESH_DATA=/data$`,
	} {
		if all := s.all(name); len(all) != 1 || !regexp.MustCompile(want).MatchString(all[0]) {
			t.Errorf("%s %q, want %s", name, all, want)
		}
	}
	labels := strings.Join(s.all("LABEL"), " ")
	for _, want := range []string{"title=", "version=$VERSION", "revision=$COMMIT", "created=$DATE", "licenses=", "source="} {
		if !strings.Contains(labels, "org.opencontainers.image."+want) {
			t.Errorf("no label %s", want)
		}
	}
}

// TestImagePorts: the ports named are those that the node listens at by default, and that
// of metrics, which has no default; but not the admin port.
func TestImagePorts(t *testing.T) {
	c := server.Default()
	want := []string{"8082/tcp"}
	for _, addr := range []string{c.Listen, c.ClusterListen, c.LinkListen} {
		want = append(want, listenPort(t, addr)+"/tcp")
	}
	for _, addr := range []string{c.Gossip, c.WANGossip} {
		want = append(want, listenPort(t, addr)+"/tcp", listenPort(t, addr)+"/udp")
	}
	var got []string
	for _, p := range strings.Fields(strings.Join(readDockerfile(t).stages[1].all("EXPOSE"), " ")) {
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		got = append(got, p)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("EXPOSE %v, the node's are %v", got, want)
	}
}

func listenPort(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	noError(t, err)
	return port
}
