package server_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/stockmesh/stockmesh"

// floors is the house: imports only run downward, neighbours never meet.
var floors = map[string]int{
	"protocol":          0,
	"cluster/bus":       0,
	"cluster/gossip":    0,
	"node/edge/poll":    0,
	"cluster/ledger":    1,
	"cluster/relay":     1,
	"cluster/rights":    1,
	"protocol/client":   1,
	"node/edge":         1,
	"node/api":          1,
	"node/token":        1,
	"node/quota":        1,
	"node/trace":        1,
	"cluster":           2,
	"protocol/replay":   2,
	"protocol/stockctl": 3,
	"node/server":       3,
	"node":              4,
	"bench":             4,
	"bench/peer":        0,
	"bench/verify":      1,
	"bench/fault":       0,
	"bench/powerfs":     0,
	"bench/page":        0,
	"helm/sbom":         0,

	"cluster/clustertest":          4,
	"cluster/clustertest/loopback": 0,
}

// soleUsers are libraries that only the named packages may import, so that what
// hides behind those packages stays there.
var soleUsers = map[string][]string{
	"github.com/nats-io/nats-server":              {"cluster/bus", "bench/peer"}, // a peer is not our bus: it is what others build on plain NATS
	"github.com/nats-io/nats.go":                  {"cluster/bus", "bench/peer"},
	"github.com/hanwen/go-fuse":                   {"bench/powerfs"},
	"github.com/jackc/pgx":                        {"bench/peer"},
	"github.com/redis/go-redis":                   {"bench/peer"},
	"github.com/hashicorp/memberlist":             {"cluster/gossip"},
	"github.com/anishathalye/porcupine":           {"cluster/clustertest"},
	"github.com/gobwas/ws":                        {"node/edge"},
	"github.com/coder/websocket":                  {"protocol/client", "bench/verify"}, // the latter looks for what the client mends
	"golang.org/x/sys/unix":                       {"node/edge/poll"},
	"github.com/tidwall/btree":                    {"cluster/ledger"},
	"go.opentelemetry.io":                         {"node/trace"},
	"github.com/goccy/go-yaml":                    {"node/server"},
	"github.com/gofrs/flock":                      {"cluster"},
	module + "/protocol/client":                   {"protocol/replay", "protocol/stockctl", "cluster/clustertest"},
	"github.com/invopop/jsonschema":               {"node/api"},
	"github.com/prometheus/client_golang":         {"cluster", "node/edge", "node/api", "node/token", "node/quota", "node/trace", "node/server", "node"},
	"github.com/golang-jwt/jwt":                   {"node/token", "protocol/stockctl", "cluster/clustertest", "bench"},
	"github.com/go-json-experiment/json":          {"protocol", "protocol/client", "node/api", "node/token"},
	"github.com/go-json-experiment/json/jsontext": {"protocol", "protocol/client", "node/api", "node/edge", "node/token"},
}

// purePackages may not touch the world: no clock, no I/O, no goroutine.
var purePackages = []string{"protocol", "cluster/ledger", "cluster/relay", "cluster/rights"}

var impure = []string{"os", "net", "net/http", "log", "log/slog", "sync", "context", "math/rand", "math/rand/v2"}

func TestImportsRunDownward(t *testing.T) {
	seen := make(map[string]bool)
	eachImport(t, func(file, pkg, imported string) {
		seen[pkg] = true
		floor, ok := floors[pkg]
		if !ok {
			t.Errorf("%s: package %s has no floor; give it one in this table", file, pkg)
			return
		}
		if target, ours := strings.CutPrefix(imported, module+"/"); ours && floors[target] >= floor {
			t.Errorf("%s: %s (floor %d) imports %s (floor %d)", file, pkg, floor, target, floors[target])
		}
	})
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("package %s stands in the table but not in the tree", pkg)
		}
	}
}

func TestLibrariesStayBehindTheirPackage(t *testing.T) {
	eachImport(t, func(file, pkg, imported string) {
		lib := longestPrefix(imported)
		if lib != "" && !slices.Contains(soleUsers[lib], pkg) {
			t.Errorf("%s: %s is for %v only", file, imported, soleUsers[lib])
		}
	})
}

func TestPurePackagesTouchNothing(t *testing.T) {
	eachImport(t, func(file, pkg, imported string) {
		if slices.Contains(purePackages, pkg) && slices.Contains(impure, imported) {
			t.Errorf("%s: the pure package %s imports %s", file, pkg, imported)
		}
	})
}

func TestTopLevel(t *testing.T) {
	allowed := []string{"bench", "cluster", "helm", "node", "protocol", "go.mod", "go.sum", "README.md", "LICENSE"}
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// Data directories of a node started here are not part of the tree.
		if name := e.Name(); !strings.HasPrefix(name, ".") && name != "data" && !slices.Contains(allowed, name) {
			t.Errorf("%s does not belong at the top level", name)
		}
	}
}

func longestPrefix(imported string) string {
	best := ""
	for lib := range soleUsers {
		if (imported == lib || strings.HasPrefix(imported, lib+"/")) && len(lib) > len(best) {
			best = lib
		}
	}
	return best
}

// eachImport calls fn for each import of each file that is no test. It parses the
// sources rather than ask the go command, whose cached answer outlives a change.
func eachImport(t *testing.T, fn func(file, pkg, imported string)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "data") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, imp := range f.Imports {
			imported, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			fn(rel, path.Dir(rel), imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// root is the top of the tree: where go.mod is.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
