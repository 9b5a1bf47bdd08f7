package helm_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// patience is how long a busy machine may take for what takes a second.
const patience = 2 * time.Minute

// watched is a node that runs as Prometheus sees it: its instance and its metrics port.
type watched struct {
	instance string
	listen   string
	metrics  string
	process  *exec.Cmd
}

// startWatched starts what has every metric there is: a region of three, one of a single
// node linked to it, and a node that knows its clients and sends traces nowhere.
func startWatched(t *testing.T) (nodes []*watched) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "node")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = "../node" // in its own module: this one has other versions of what it needs
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const perNode = 7
	addresses := loopback.Addresses(t, 5*perNode)
	start := func(instance string, options ...string) []string {
		a := addresses[len(nodes)*perNode:][:perNode]
		n := &watched{instance: instance, listen: a[0], metrics: a[2]}
		region, _, _ := strings.Cut(instance, "-")
		n.start(t, program, append([]string{"--region", region, "--name", instance, "--insecure",
			"--listen", a[0], "--admin", a[1], "--metrics", a[2]}, options...)...)
		nodes = append(nodes, n)
		return a
	}
	for n := range 3 {
		a := addresses[n*perNode:]
		start(fmt.Sprintf("eu-%d", n), "--expect", "3", "--gossip", a[3], "--cluster-listen", a[4], "--join", addresses[3],
			"--wan-gossip", a[5], "--link-listen", a[6])
	}
	a := addresses[3*perNode:]
	start("us-0", "--wan-gossip", a[5], "--link-listen", a[6], "--join-region", addresses[5])
	start("till-0", "--jwks", keySet(t), "--rate-limit-per-user", "1000", "--trace-endpoint", "http://127.0.0.1:9")
	for _, n := range nodes {
		eventually(t, n.instance+" is ready", func() bool {
			answer, err := get("http://" + n.metrics + "/readyz")
			return err == nil && strings.Contains(answer, "ready")
		})
	}
	return nodes
}

func (n *watched) start(t *testing.T, program string, options ...string) {
	t.Helper()
	logs, err := os.Create(filepath.Join(t.TempDir(), n.instance+".log"))
	if err != nil {
		t.Fatal(err)
	}
	n.process = exec.Command(program, append(options, "--data", filepath.Join(t.TempDir(), n.instance))...)
	n.process.Stdout, n.process.Stderr = logs, logs
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nobody is left to be sent elsewhere: it need not end in order.
		_ = n.process.Process.Signal(syscall.SIGKILL)
		_ = n.process.Wait()
		if said, err := os.ReadFile(logs.Name()); t.Failed() && err == nil {
			t.Logf("%s said:\n%s", n.instance, said)
		}
		logs.Close()
	})
}

// keySet is a file with a public key that nobody signs with.
func keySet(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// use puts stock in one region and sells it in the other, so that rights move too. Links
// that are new may take longer than a sale waits for them.
func use(t *testing.T, nodes []*watched) {
	t.Helper()
	eu, us := nodes[0].listen, nodes[3].listen
	for _, step := range []struct{ listen, path, body string }{
		{eu, "/v1/adjustments", `{"sku":"mug","delta":10}`},
		{us, "/v1/sales", `{"lines":[{"sku":"mug","quantity":2}]}`},
		{eu, "/v1/reservations", `{"lines":[{"sku":"mug","quantity":1}]}`},
	} {
		eventually(t, step.path+" succeeds", func() bool {
			err := change(t, "http://"+step.listen+step.path, step.body)
			if err != nil {
				t.Log(err)
			}
			return err == nil
		})
	}
	// What is refused is counted by its code, once there is any.
	if err := change(t, "http://"+eu+"/v1/sales", `{"lines":[{"sku":"mug","quantity":1000}]}`); err == nil {
		t.Fatal("1000 are sold of 10")
	}
}

func change(t *testing.T, url, body string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", rand.Text())
	_, err = answered(req)
	return err
}

func get(url string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	return answered(req)
}

// answered returns the body of an answer that is no refusal.
func answered(req *http.Request) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s %s", req.URL, res.Status, body)
	}
	return string(body), err
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	if !soon(is) {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// soon reports whether it becomes so within the time that a busy machine may take.
func soon(is func() bool) bool {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}
