package helm_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// imageReadyWithin bounds a start on a busy machine.
const imageReadyWithin = 2 * time.Minute

// imageContainer runs commands as an engine would run the image with its root read-only: with
// a root and mounts of their own, as the image's user, in no environment but its own.
type imageContainer struct {
	root, data, user string
	env              []string
}

// enterImage makes the mounts; the program then takes the shell's place and has its process
// id. Only /data is over what can't be written to.
const enterImage = `
root=$1 data=$2 user=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount -o remount,bind,ro "$root"
if touch "$root/written" 2>/dev/null; then echo 'the root can be written to' >&2; exit 99; fi
exec chroot --userspec="$user" --groups= "$root" "$@"`

func (c *imageContainer) command(ctx context.Context, words ...string) *exec.Cmd {
	args := append([]string{"--mount", "--propagation", "private", "/bin/sh", "-euc", enterImage, "enter", c.root, c.data, c.user}, words...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = c.env
	return cmd
}

// runsReadOnly starts the image's entry point on its own files: it serves, its health
// check passes, and after a kill it is what it was.
func runsReadOnly(t *testing.T, s *imageStage, b *imageBuilder) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a root of its own")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("no mounts of one's own here: %v %s", err, out)
	}
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err != nil {
		t.Skipf("stands in for the base image's: %v", err)
	}
	addrs := loopback.Addresses(t, 3)
	c := &imageContainer{root: b.assemble(t, s), data: t.TempDir(), user: s.all("USER")[0], env: append(s.environment(),
		// The programs that make the mounts are found by it; there are none in the image.
		"PATH="+os.Getenv("PATH"),
		"STOCKMESH_LISTEN="+addrs[0], "STOCKMESH_ADMIN="+addrs[1], "STOCKMESH_METRICS="+addrs[2],
		"STOCKMESH_ENDPOINTS=http://"+addrs[0])}
	dataOwned(t, c.root, c.user)
	uid, gid := ids(t, c.user)
	noError(t, os.Chown(c.data, uid, gid))

	entry := jsonCommand(t, s.all("ENTRYPOINT")[0])
	health := jsonCommand(t, regexp.MustCompile(`CMD .*`).FindString(s.all("HEALTHCHECK")[0]))
	if out, err := c.command(t.Context(), health...).CombinedOutput(); err == nil {
		t.Errorf("healthy before it runs: %s", out)
	}
	for round := range 2 {
		stop := c.start(t, entry, addrs[1])
		if out, err := c.command(t.Context(), health...).CombinedOutput(); err != nil {
			t.Errorf("health check: %v\n%s", err, out)
		}
		if round == 0 {
			c.mustRun(t, "/stockctl", "count", "tee", "40")
		}
		if out := c.mustRun(t, "/stockctl", "get", "tee"); !strings.Contains(out, "40") {
			t.Errorf("start %d: %s", round+1, out)
		}
		stop()
	}
}

// owned looks at what an engine would take over for an empty volume.
func dataOwned(t *testing.T, root, user string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "stat", "-c", "%u:%g", filepath.Join(root, "data")).Output()
	noError(t, err)
	if got := strings.TrimSpace(string(out)); got != user {
		t.Errorf("/data belongs to %s, not to %s", got, user)
	}
}

func (c *imageContainer) mustRun(t *testing.T, words ...string) string {
	t.Helper()
	out, err := c.command(t.Context(), words...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", words, err, out)
	}
	return string(out)
}

// start waits until the node is ready and returns what kills it, as a power cut would.
func (c *imageContainer) start(t *testing.T, entry []string, admin string) (kill func()) {
	t.Helper()
	cmd := c.command(t.Context(), entry...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	noError(t, cmd.Start())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // it is killed
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-gone
	}
	t.Cleanup(kill)
	if err := imageReady(t.Context(), admin, gone); err != nil {
		kill()
		t.Fatalf("%v\n%s", err, log.String())
	}
	runsAs(t, cmd.Process.Pid, c.user)
	return kill
}

func imageReady(ctx context.Context, admin string, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, imageReadyWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("readyz: %s", res.Status)
		}
		select {
		case <-tick.C:
		case <-gone:
			return fmt.Errorf("the node ended")
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v: %w", imageReadyWithin, err)
		}
	}
}

// runsAs reads all four of the process' users from the kernel.
func runsAs(t *testing.T, pid int, user string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	noError(t, err)
	uid, gid := ids(t, user)
	for name, id := range map[string]int{"Uid": uid, "Gid": gid} {
		want := fmt.Sprintf("%s:\t%d\t%d\t%d\t%d\n", name, id, id, id, id)
		if !strings.Contains(string(status), want) {
			t.Errorf("runs otherwise than with %s:\n%s", want, status)
		}
	}
}
