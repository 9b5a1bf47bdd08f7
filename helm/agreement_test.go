package helm_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"

	"github.com/stockmesh/stockmesh/node/server"
)

// ours are options that the chart sets itself, from values of other names or from none.
var ours = []string{
	"config", "data", "region", "name", "expect", "shards", "listen", "admin", "metrics", "advertise",
	"gossip", "join", "gossip-key", "cluster-listen", "advertise-gossip", "advertise-cluster",
	"wan-gossip", "join-region", "link-listen", "advertise-wan", "advertise-link", "link-secret",
	"mesh-cert", "mesh-key", "mesh-ca", "tls-cert", "tls-key", "tls-ca",
	"jwks", "jwt-issuer", "jwt-audience", "trusted-proxies", "drain", "insecure",
	"trace-endpoint", "trace-ratio", "log-format", "log-level",
}

// configured is what the node makes of a pod's environment and node.yaml.
func configured(t *testing.T, o *objects, p renderedPod) server.Config {
	t.Helper()
	c := server.Default()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(flags)
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(o.file(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"STOCKMESH_CONFIG=" + file}
	for k, v := range p.env {
		if k != "STOCKMESH_CONFIG" {
			env = append(env, k+"="+v)
		}
	}
	if _, err := server.ReadOptions(flags, env); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	return c
}

// checkOptions: each pod's node takes what the chart tells it.
func checkOptions(t *testing.T, o *objects) {
	t.Helper()
	pods := podsOf(t, o)
	for _, p := range pods {
		c := configured(t, o, p)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: the node refuses its options: %v", p.name, err)
		}
		if c.Name != p.name || c.Expect != len(pods) || c.Data != o.dataPath(t) {
			t.Errorf("%s: name %q, %d nodes, data in %q", p.name, c.Name, c.Expect, c.Data)
		}
	}
}

// dataPath is where the volume of a node's data is.
func (o *objects) dataPath(t *testing.T) string {
	t.Helper()
	_, c := o.node(t)
	claim := one(t, o.sets).Spec.VolumeClaimTemplates[0].Name
	for _, m := range c.VolumeMounts {
		if m.Name == claim {
			return m.MountPath
		}
	}
	t.Fatal("the volume is not mounted")
	return ""
}

// opened are a node's ports by the names that the chart gives them: what it was told to
// listen at, and its own defaults.
func opened(t *testing.T, c *server.Config, clustered, meshed bool) map[string]int32 {
	t.Helper()
	addresses := map[string]string{"edge": c.Listen, "metrics": c.Metrics}
	if clustered {
		addresses["gossip"], addresses["gossip-udp"], addresses["routes"] = c.Gossip, c.Gossip, c.ClusterListen
	}
	if meshed {
		addresses["wan"], addresses["wan-udp"], addresses["links"] = c.WANGossip, c.WANGossip, c.LinkListen
	}
	ports := make(map[string]int32)
	for name, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host != "" {
			t.Errorf("%s listens at %q: %v", name, address, err)
		}
		var n int32
		if _, err := fmt.Sscan(port, &n); err != nil {
			t.Errorf("%s listens at %q: %v", name, address, err)
		}
		ports[name] = n
	}
	return ports
}

func protocolOf(port string) core.Protocol {
	if strings.HasSuffix(port, "-udp") {
		return core.ProtocolUDP
	}
	return core.ProtocolTCP
}

// checkPorts: the node's own ports, the container's, the Services', the policy's and the
// probes' are the same.
func checkPorts(t *testing.T, o *objects) {
	t.Helper()
	_, c := o.node(t)
	pods := podsOf(t, o)
	config := configured(t, o, pods[0])
	_, meshed := o.options(t)["wan-gossip"]
	want := opened(t, &config, len(pods) > 1, meshed)

	got := make(map[string]int32)
	for _, p := range c.Ports {
		got[p.Name] = p.ContainerPort
		if p.Protocol != protocolOf(p.Name) {
			t.Errorf("port %s is %s", p.Name, p.Protocol)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the container's ports are not the node's (-node +container):\n%s", diff)
	}
	if host, _, err := net.SplitHostPort(config.Admin); err != nil || host != "127.0.0.1" {
		t.Errorf("the admin port is at %s: anybody in the cluster may operate the node", config.Admin)
	}
	for _, s := range o.services {
		for _, p := range s.Spec.Ports {
			if port, ok := want[p.TargetPort.StrVal]; !ok || p.Protocol != protocolOf(p.TargetPort.StrVal) {
				t.Errorf("Service %s leads to %v", s.Name, p.TargetPort)
			} else if s.Spec.ClusterIP == core.ClusterIPNone && p.Port != port {
				t.Errorf("Service %s has port %d, behind it is %d: a headless one changes none", s.Name, p.Port, port)
			}
		}
	}
	edge := o.service(t, one(t, o.sets).Name)
	if len(edge.Spec.Ports) != 1 || edge.Spec.Ports[0].TargetPort.StrVal != "edge" {
		t.Errorf("clients' Service has %v", edge.Spec.Ports)
	}
	for name, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		path := map[bool]string{true: "/readyz", false: "/healthz"}[name == "readiness"]
		if probe.HTTPGet.Port.StrVal != "metrics" || probe.HTTPGet.Path != path {
			t.Errorf("the %s probe asks %v for %s", name, probe.HTTPGet.Port.StrVal, probe.HTTPGet.Path)
		}
	}
	for _, m := range o.monitors {
		if p := m.Spec.Endpoints[0].Port; portOf(t, o.service(t, one(t, o.sets).Spec.ServiceName), p).Port != want["metrics"] {
			t.Errorf("Prometheus reads port %s", p)
		}
		if !within(m.Spec.Selector.MatchLabels, o.service(t, one(t, o.sets).Spec.ServiceName).Labels) || within(m.Spec.Selector.MatchLabels, edge.Labels) {
			t.Error("Prometheus doesn't find the nodes, or finds them twice")
		}
	}
	for _, p := range o.policies {
		checkPolicy(t, p, want)
	}
}

// checkPolicy: what comes in does so at the node's ports, and each of them is open to
// somebody; nodes of the region reach each other at all ports but the clients' and
// Prometheus'.
func checkPolicy(t *testing.T, p *networking.NetworkPolicy, ports map[string]int32) {
	t.Helper()
	if len(p.Spec.PolicyTypes) != 2 {
		t.Errorf("the policy is for %v", p.Spec.PolicyTypes)
	}
	own := func(peers []networking.NetworkPolicyPeer) bool {
		return slices.ContainsFunc(peers, func(peer networking.NetworkPolicyPeer) bool {
			return peer.PodSelector != nil && cmp.Equal(*peer.PodSelector, p.Spec.PodSelector)
		})
	}
	in, among, out := map[string]bool{}, map[string]bool{}, map[string]bool{}
	add := func(to map[string]bool, list []networking.NetworkPolicyPort) {
		for _, port := range list {
			to[fmt.Sprintf("%d/%s", port.Port.IntVal, *port.Protocol)] = true
		}
	}
	for _, rule := range p.Spec.Ingress {
		add(in, rule.Ports)
		if own(rule.From) {
			add(among, rule.Ports)
		}
	}
	for _, rule := range p.Spec.Egress {
		if own(rule.To) {
			add(out, rule.Ports)
		}
	}
	all, region := map[string]bool{}, map[string]bool{}
	for name, port := range ports {
		at := fmt.Sprintf("%d/%s", port, protocolOf(name))
		all[at] = true
		if name != "edge" && name != "metrics" {
			region[at] = true
		}
	}
	if slices.Contains(slices.Collect(maps.Keys(in)), "8082/TCP") == false {
		delete(all, "8082/TCP") // metrics that nobody may read
	}
	for what, diff := range map[string]string{"comes in": cmp.Diff(all, in), "comes from the region": cmp.Diff(region, among), "goes to the region": cmp.Diff(region, out)} {
		if diff != "" {
			t.Errorf("what %s (-node +policy):\n%s", what, diff)
		}
	}
}

// TestConfigNamesOptions: values.schema.json knows all of the node's options that the
// chart doesn't set itself, by their types.
func TestConfigNamesOptions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Ref        string            `json:"$ref"`
		Type       string            `json:"type"`
		Properties map[string]schema `json:"properties"`
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for name, p := range s.Properties["config"].Properties {
		got[name] = p.Type + p.Ref
	}
	kinds := map[string]string{"int": "integer", "duration": "#/$defs/duration", "string": "string", "stringSlice": "", "bool": "boolean", "float64": "number"}
	c := server.Default()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	c.Bind(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(ours, f.Name) {
			want[f.Name] = kinds[f.Value.Type()]
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-node's options +values.schema.json):\n%s", diff)
	}
	for _, name := range ours {
		if flags.Lookup(name) == nil {
			t.Errorf("the node has no option %s", name)
		}
	}
}
