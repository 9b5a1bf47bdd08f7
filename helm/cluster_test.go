package helm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/node/server"
)

// cluster stands for a cluster on this machine: a release's pods are processes, with
// their own command lines, environment and files. Nothing is changed but addresses, each
// for one on loopback, and paths.
type cluster struct {
	objects   *objects
	name      string // of the release's objects
	headless  string
	programs  map[string]string // by path in the image
	container *core.Container
	pods      []*pod
	service   *service
}

type pod struct {
	cluster *cluster
	of      renderedPod
	dir     string

	mu      sync.Mutex
	ports   map[string]string // addresses by port of the container; replaced, not changed
	deleted time.Time         // when it was told to stop; zero while it should run

	cmd    *exec.Cmd
	log    bytes.Buffer
	exited chan error
}

// listening are the options by which a node opens ports.
var listening = []string{"listen", "admin", "metrics", "gossip", "cluster-listen"}

func newCluster(t *testing.T, r release) *cluster {
	t.Helper()
	o := render(t, r)
	set := one(t, o.sets)
	_, c := o.node(t)
	k := &cluster{objects: o, name: set.Name, headless: set.Spec.ServiceName, container: c, programs: programs(t)}
	for _, p := range podsOf(t, o) {
		k.pods = append(k.pods, &pod{cluster: k, of: p, dir: t.TempDir()})
	}
	k.move(t, k.pods...)
	k.service = serve(t, k)
	t.Cleanup(func() {
		for _, p := range k.pods {
			p.kill()
			if t.Failed() {
				t.Logf("%s:\n%s", p.of.name, &p.log)
			}
		}
	})
	return k
}

// programs builds what is in the image.
func programs(t *testing.T) map[string]string {
	t.Helper()
	paths := map[string]string{"/node": "./node", "/stockctl": "./protocol/stockctl"}
	for path, source := range paths {
		file := filepath.Join(t.TempDir(), filepath.Base(path))
		build := exec.Command("go", "build", "-o", file, source)
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", source, err, out)
		}
		paths[path] = file
	}
	return paths
}

// move gives pods new addresses, as when they start on another machine.
func (k *cluster) move(t *testing.T, pods ...*pod) {
	t.Helper()
	for _, p := range pods {
		c := configured(t, k.objects, p.of)
		ports := make(map[string]string)
		flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
		c.Bind(flags)
		free := loopback.Addresses(t, len(listening))
		for i, name := range listening {
			_, port, err := net.SplitHostPort(flags.Lookup(name).Value.String())
			if err != nil {
				t.Fatal(err)
			}
			ports[port] = free[i]
		}
		p.mu.Lock()
		p.ports = ports
		p.mu.Unlock()
	}
}

// here puts this machine's addresses and paths into a text of the pod's.
func (p *pod) here(text string) string {
	k := p.cluster
	number := `:([0-9]+)`
	for pattern, to := range map[string]func(port string, of string) string{
		// Another node's, or its own, by name.
		`(` + k.name + `-[0-9]+)\.` + k.headless + `(?:\.shop\.svc)?` + number: func(of, port string) string { return k.pod(of).ports[port] },
		// All of them.
		`(^|[^.])` + k.headless + number: func(before, port string) string {
			var all []string
			for _, other := range k.pods {
				all = append(all, other.ports[port])
			}
			return before + strings.Join(all, ",")
		},
		// Any that is ready.
		`(//)` + k.name + `(?:\.shop\.svc)` + number: func(before, _ string) string { return before + k.service.addr },
		// The pod's own address, or all of it.
		`^(\[?127\.0\.0\.1\]?|)` + number + `$`: func(_, port string) string { return p.ports[port] },
		`^(/etc/stockmesh/config)(/.*)$`:        func(_, file string) string { return p.dir + file },
		`^(/data)()$`:                           func(string, string) string { return filepath.Join(p.dir, "data") },
		`^(/node|/stockctl)()$`:                 func(path, _ string) string { return k.programs[path] },
	} {
		if m := regexp.MustCompile(pattern).FindStringSubmatchIndex(text); m != nil {
			return text[:m[0]] + to(text[m[2]:m[3]], text[m[4]:m[5]]) + text[m[1]:]
		}
	}
	return text
}

func (k *cluster) pod(name string) *pod {
	return k.pods[slices.IndexFunc(k.pods, func(p *pod) bool { return p.of.name == name })]
}

func (p *pod) env() (env []string) {
	for name, value := range p.of.env {
		env = append(env, name+"="+p.here(value))
	}
	return env
}

// writeOptions writes node.yaml as the chart has it. What a node opens by default is in it
// too: pods have an address each, processes share one.
func (p *pod) writeOptions(t *testing.T) {
	t.Helper()
	options := p.cluster.objects.options(t)
	c := server.Default()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(flags)
	for _, name := range listening {
		if _, said := options[name]; !said {
			options[name] = flags.Lookup(name).Value.String()
		}
	}
	for name, value := range options {
		switch v := value.(type) {
		case string:
			options[name] = p.here(v)
		case []any:
			var list []string
			for _, s := range v {
				list = append(list, strings.Split(p.here(s.(string)), ",")...)
			}
			options[name] = list
		}
	}
	text, err := yaml.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "node.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) start(t *testing.T) {
	t.Helper()
	p.writeOptions(t)
	p.mark(time.Time{})
	p.cmd = p.command(context.Background(), slices.Concat(p.cluster.container.Command, p.cluster.container.Args))
	p.cmd.Stderr = &p.log // of all its processes
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	p.exited = exited
	cmd := p.cmd
	go func() { exited <- cmd.Wait() }()
}

// command is something that is run in the pod.
func (p *pod) command(ctx context.Context, words []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.here(words[0]), words[1:]...)
	cmd.Env = p.env()
	return cmd
}

// kill ends the process without a word.
func (p *pod) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
	p.cmd = nil
}

// mark says that the pod is to be deleted, or runs.
func (p *pod) mark(deleted time.Time) {
	p.mu.Lock()
	p.deleted = deleted
	p.mu.Unlock()
}

// deletedFor is how long ago it was told to stop; 0 while it runs.
func (p *pod) deletedFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleted.IsZero() {
		return 0
	}
	return time.Since(p.deleted)
}

// stop does what the kubelet does with a pod that is deleted.
func (p *pod) stop(t *testing.T) {
	t.Helper()
	spec, _ := p.cluster.objects.node(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second)
	defer cancel()
	p.mark(time.Now())
	if out, err := p.command(ctx, p.cluster.container.Lifecycle.PreStop.Exec.Command).CombinedOutput(); err != nil {
		t.Fatalf("%s: preStop: %v\n%s", p.of.name, err, out)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		if err != nil {
			t.Fatalf("%s ended with %v", p.of.name, err)
		}
	case <-ctx.Done():
		t.Fatalf("%s would have been killed: it takes longer than its grace period", p.of.name)
	}
	p.cmd = nil
}

// address is where one of the container's ports is, by its name.
func (p *pod) address(port string) string {
	all := p.cluster.container.Ports
	i := slices.IndexFunc(all, func(c core.ContainerPort) bool { return c.Name == port })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports[strconv.Itoa(int(all[i].ContainerPort))]
}

// probe asks as the kubelet does.
func (p *pod) probe(probe *core.Probe) error {
	asking := http.Client{Timeout: time.Duration(probe.TimeoutSeconds) * time.Second}
	answer, err := asking.Get("http://" + p.address(probe.HTTPGet.Port.StrVal) + probe.HTTPGet.Path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("%s: %s", answer.Status, text)
	}
	return nil
}

// await waits until pods are ready, and the Service leads to them.
func (k *cluster) await(t *testing.T, pods ...*pod) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, p := range pods {
		for {
			err := p.probe(k.container.ReadinessProbe)
			if err == nil && k.service.has(p) {
				break
			}
			select {
			case <-tick.C:
			case ended := <-p.exited:
				p.exited <- ended
				t.Fatalf("%s ended: %v", p.of.name, ended)
			case <-deadline:
				t.Fatalf("%s is not ready: %v", p.of.name, err)
			}
		}
	}
}

// service leads each connection to a node that is ready and not about to be deleted, as a
// Service does.
type service struct {
	addr    string
	listen  net.Listener
	running sync.WaitGroup

	mu      sync.Mutex
	ready   map[*pod]string // addresses of the edge port
	turn    int
	without int // connections that found no node
	refused int // connections that a node didn't take
}

const (
	// probeEvery is sooner than the kubelet asks, so that tests are not slow; how long a
	// probe must fail until it counts is as the chart has it.
	probeEvery = 100 * time.Millisecond
	// endpointsTake is how long it takes until all machines know of a deleted pod.
	endpointsTake = time.Second
)

func serve(t *testing.T, k *cluster) *service {
	t.Helper()
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{addr: listen.Addr().String(), listen: listen, ready: make(map[*pod]string)}
	ctx, cancel := context.WithCancel(context.Background())
	for _, p := range k.pods {
		s.running.Go(func() { s.look(ctx, p) })
	}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		cancel()
		s.listen.Close()
		s.running.Wait()
		if t.Failed() {
			t.Logf("the Service: %d connections found no node that is ready, %d a closed door", s.without, s.refused)
		}
	})
	return s
}

// look keeps one pod's address while the pod is ready.
func (s *service) look(ctx context.Context, p *pod) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	probe := p.cluster.container.ReadinessProbe
	patient := time.Duration(probe.PeriodSeconds*probe.FailureThreshold) * time.Second
	var good time.Time
	for {
		err := p.probe(probe)
		if err == nil {
			good = time.Now()
		}
		s.mu.Lock()
		switch {
		case p.deletedFor() > endpointsTake, time.Since(good) > patient:
			delete(s.ready, p)
		case err == nil:
			s.ready[p] = p.address("edge")
		}
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *service) has(p *pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready[p] == p.address("edge")
}

func (s *service) next() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		s.without++
		return "", false
	}
	s.turn++
	return slices.Sorted(maps.Values(s.ready))[s.turn%len(s.ready)], true
}

func (s *service) accept() {
	for {
		client, err := s.listen.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() {
			defer client.Close()
			address, ok := s.next()
			if !ok {
				return
			}
			node, err := net.Dial("tcp", address)
			if err != nil {
				s.mu.Lock()
				s.refused++
				s.mu.Unlock()
				return
			}
			join(client, node)
		})
	}
}

// join copies both ways until either side ends.
func join(a, b net.Conn) {
	done := make(chan error, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, err := io.Copy(way[0], way[1])
			done <- err
		}()
	}
	<-done
	_ = errors.Join(a.Close(), b.Close()) // so that the other way ends
	<-done
}
