package main

import (
	"context"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

// describeVersion says what was built into this binary.
func describeVersion() page.Version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return page.Version{}
	}
	v := page.Version{Module: info.Main.Version}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	if v.Revision == "" {
		v.Revision, v.Modified = checkedOut(info.Main.Path)
	}
	return v
}

const gitPatience = 2 * time.Second

// checkedOut asks git for the revision, as go run writes none into a binary. Only in a
// checkout of the module is that the one that was built.
func checkedOut(module string) (revision string, modified bool) {
	if b, err := os.ReadFile("go.mod"); err != nil || !strings.HasPrefix(string(b), "module "+module+"\n") {
		return "", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), gitPatience)
	defer cancel()
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "", false
	}
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output()
	return strings.TrimSpace(string(head)), err != nil || len(changes) > 0
}
