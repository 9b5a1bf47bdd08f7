package helm_test

import (
	"crypto/x509"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	valuesOpen    = "insecure: true\n"
	valuesJWKS    = "auth: {jwks: {url: 'https://id.example.com/keys'}, issuer: a, audience: b}\n"
	valuesMesh    = "mesh: {enabled: true, peerCIDRs: [10.9.0.0/16], join: ['us-0.example.com:7947'], advertise: {domain: mesh.example.com}}\n"
	valuesNodeTLS = "nodeTLS: {existingSecret: nodes}\n"
)

// matrix are installations of all kinds; those of presets are examples that must work.
var matrix = map[string]release{
	"one node":      {values: valuesOpen + "replicas: 1"},
	"one with keys": {values: valuesJWKS + "replicas: 1"},
	"three nodes":   {values: valuesOpen},
	"five nodes":    {values: valuesOpen + "replicas: 5"},
	"other names":   {name: "x", values: valuesOpen + "fullnameOverride: north\nregion: north-1\nshards: 4"},
	"two regions":   {values: valuesOpen + "region: eu\n" + strings.Replace(valuesMesh, "advertise: {domain: mesh.example.com}", "advertise: {domain: ''}", 1)},
	"one in a mesh": {values: valuesJWKS + valuesNodeTLS + valuesMesh + "replicas: 1"},
	"TLS":           {values: valuesJWKS + valuesNodeTLS + "tls: {existingSecret: edge, certKey: a.pem, keyKey: a.key, clientCA: {existingSecret: tills, key: tills.pem}}"},
	"secrets": {values: valuesNodeTLS + valuesMesh + `
auth: {jwks: {existingSecret: keys, key: keys.pem}, issuer: a, audience: b}
gossipKey: {existingSecret: gossip, key: g}
linkSecret: {existingSecret: link, key: l}
test: {tokenSecret: probe, tokenKey: t, caSecret: ca, caKey: c}
`},
	"keys of a ConfigMap": {values: valuesNodeTLS + "auth: {jwks: {existingConfigMap: keys}}"},
	"cert-manager": {values: valuesJWKS + valuesMesh + `
tls: {certManager: {enabled: true, dnsNames: [shop.example.com], ipAddresses: [10.0.0.1], issuerRef: {name: edge, kind: ClusterIssuer}}}
nodeTLS: {certManager: {enabled: true, issuerRef: {name: nodes}}}
`},
	"ingress":         {values: valuesJWKS + valuesNodeTLS + "ingress: {enabled: true, className: nginx, hosts: [shop.example.com, s.example.com], tlsSecret: shop}\ntrustedProxies: [10.0.0.0/8]"},
	"ingress and TLS": {values: valuesJWKS + valuesNodeTLS + "ingress: {enabled: true, hosts: [shop.example.com]}\ntls: {existingSecret: edge}"},
	"gateway":         {values: valuesJWKS + valuesNodeTLS + "httpRoute: {enabled: true, hosts: [shop.example.com], parentRefs: [{name: public, namespace: gateways}]}"},
	"monitoring":      {values: valuesOpen + "monitoring: {serviceMonitor: {enabled: true, labels: {release: p}}, prometheusRule: {enabled: true, labels: {release: p}}, dashboard: {enabled: true}}"},
	"load balancers": {values: valuesJWKS + valuesNodeTLS + `
service: {type: LoadBalancer, port: 443, annotations: {a: b}, externalTrafficPolicy: Local, loadBalancerSourceRanges: [10.0.0.0/8], appProtocol: kubernetes.io/wss}
mesh:
  enabled: true
  peerSelectors: [{namespaceSelector: {matchLabels: {region: us}}}]
  advertise: {domain: mesh.example.com}
  service: {type: LoadBalancer, loadBalancerClass: x, annotations: {host: '{pod}.mesh.example.com'}}
`},
	"node ports": {values: valuesJWKS + valuesNodeTLS + strings.Replace(valuesMesh, "}}\n", "}, service: {type: NodePort, nodePorts: {wan: 31940, links: 31950}}}\n", 1) + "service: {type: NodePort}"},
	"the rest": {values: valuesOpen + `
config: {key-window: 48h, history: 100h, rate-limit: 1000000, origins: [https://a.example.com], max-connections: 0, log-burst: 5}
drain: {delaySeconds: 0, seconds: 0}
log: {format: text, level: debug}
tracing: {endpoint: 'http://otel.monitoring:4318', ratio: 0.5}
networkPolicy: {edgeFrom: [{podSelector: {}}], metricsFrom: [], tracesTo: [{podSelector: {}}], extraIngress: [{from: [{podSelector: {}}]}], extraEgress: [{to: [{podSelector: {}}]}]}
image: {digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}
imagePullSecrets: [{name: pull}]
persistence: {size: 1.5Ti, storageClass: fast, annotations: {a: b}}
resources: {requests: null, limits: {memory: 1.5Gi, cpu: null}}
podAntiAffinity: hard
topologySpread: {whenUnsatisfiable: DoNotSchedule, topologyKey: rack}
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: In, values: [nvme]}]}}]}}
nodeSelector: {disk: nvme}
tolerations: [{key: stock, operator: Exists}]
priorityClassName: high
podAnnotations: {a: b}
podLabels: {team: shop}
extraEnv: [{name: TZ, value: UTC}]
serviceAccount: {create: false}
podDisruptionBudget: {enabled: false}
`},
	"no policy":       {values: valuesOpen + "networkPolicy: {enabled: false}\npodAntiAffinity: none\ntopologySpread: {whenUnsatisfiable: ''}\nresources: {limits: null}"},
	"preset: store":   {name: "store-12", files: []string{"presets/store.yaml"}},
	"preset: region":  {files: []string{"presets/region.yaml"}},
	"preset: peer":    {name: "us", files: []string{"presets/region.yaml", "presets/peer.yaml"}},
	"preset: at home": {name: "store-12", files: []string{"presets/store.yaml"}, values: valuesNodeTLS + valuesMesh},
}

// TestMatrix renders each installation, decodes it strictly, and looks at what must hold
// for all.
func TestMatrix(t *testing.T) {
	for name, r := range matrix {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := render(t, r)
			checkPod(t, o)
			checkSet(t, o)
			checkReferences(t, o)
			checkCertificates(t, o)
			checkOptions(t, o)
			checkPorts(t, o)
		})
	}
}

func TestLint(t *testing.T) {
	for name, r := range map[string]release{"defaults": {}, "three": matrix["three nodes"], "all": matrix["the rest"], "peer": matrix["preset: peer"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := helm(t, append([]string{"lint", "--strict", chart}, r.args(t)...)...); err != nil {
				t.Fatal(err, out)
			}
		})
	}
}

// checkPod: nothing that a node doesn't need.
func checkPod(t *testing.T, o *objects) {
	t.Helper()
	spec, c := o.node(t)
	test := one(t, o.pods).Spec
	for what, pod := range map[string]*core.PodSpec{"node": spec, "test": &test} {
		s := pod.SecurityContext
		if !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *s.FSGroup != 65532 || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: security context %+v", what, s)
		}
		k := pod.Containers[0].SecurityContext
		if !*k.ReadOnlyRootFilesystem || *k.AllowPrivilegeEscalation || !slices.Equal(k.Capabilities.Drop, []core.Capability{"ALL"}) {
			t.Errorf("%s: security context of the container %+v", what, k)
		}
		if *pod.AutomountServiceAccountToken || *pod.EnableServiceLinks {
			t.Errorf("%s has a token of the cluster's, or variables that the node refuses", what)
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("%s sees its machine", what)
		}
	}
	if c.Resources.Limits.Cpu().Sign() != 0 {
		t.Error("a CPU limit by default stops the node for moments")
	}
	if limit := c.Resources.Limits.Memory().Value(); limit > 0 {
		want := limit / 10 * 9
		if got := envOf(c, "GOMEMLIMIT"); got == "" || near(got, want) != nil {
			t.Errorf("GOMEMLIMIT is %q, want about %d: %v", got, want, near(got, want))
		}
	} else if envOf(c, "GOMEMLIMIT") != "" {
		t.Error("GOMEMLIMIT without a limit")
	}
}

// checkSet: what a region needs of its StatefulSet.
func checkSet(t *testing.T, o *objects) {
	t.Helper()
	set := one(t, o.sets)
	_, c := o.node(t)
	if set.Spec.PodManagementPolicy != apps.ParallelPodManagement {
		t.Error("nodes that wait for each other are started one by one")
	}
	if keep := set.Spec.PersistentVolumeClaimRetentionPolicy; keep.WhenDeleted != apps.RetainPersistentVolumeClaimRetentionPolicyType || keep.WhenScaled != keep.WhenDeleted {
		t.Errorf("volumes go with the nodes: %+v", keep)
	}
	headless := o.service(t, set.Spec.ServiceName)
	if headless.Spec.ClusterIP != core.ClusterIPNone || !headless.Spec.PublishNotReadyAddresses {
		t.Error("nodes can't find each other before they serve")
	}
	selected := map[string]map[string]string{"StatefulSet": set.Spec.Selector.MatchLabels}
	for _, s := range o.services {
		if s.Labels["app.kubernetes.io/component"] != "mesh" {
			selected["Service "+s.Name] = s.Spec.Selector
		}
	}
	for _, b := range o.budgets {
		selected["PodDisruptionBudget"] = b.Spec.Selector.MatchLabels
	}
	for _, p := range o.policies {
		selected["NetworkPolicy"] = p.Spec.PodSelector.MatchLabels
	}
	for what, labels := range selected {
		if !within(labels, set.Spec.Template.Labels) {
			t.Errorf("%s selects %v, nodes have %v", what, labels, set.Spec.Template.Labels)
		}
		if within(labels, one(t, o.pods).Labels) {
			t.Errorf("%s selects the test's pod too", what)
		}
	}
	for _, fixed := range []map[string]string{set.Spec.Selector.MatchLabels, set.Spec.VolumeClaimTemplates[0].Labels} {
		for k := range fixed {
			if k == "helm.sh/chart" || k == "app.kubernetes.io/version" {
				t.Errorf("%s changes with an upgrade, where a StatefulSet can't", k)
			}
		}
	}
	if budgets := len(o.budgets); budgets > 0 && *set.Spec.Replicas == 1 {
		t.Error("a budget of one node keeps its machine from being emptied")
	}
	checkGrace(t, set, c, o.options(t))
}

// checkGrace: the pod is given as long as its node may take.
func checkGrace(t *testing.T, set *apps.StatefulSet, c *core.Container, options map[string]any) {
	t.Helper()
	drain, err := time.ParseDuration(options["drain"].(string))
	if err != nil {
		t.Fatal(err)
	}
	command := c.Lifecycle.PreStop.Exec.Command
	delay, timeout := durationAfter(t, command, "--delay"), durationAfter(t, command, "--timeout")
	grace := time.Duration(*set.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	// What a node takes at most: its hand-over and its clients, then closing what it keeps.
	if least := delay + drain + 10*time.Second; timeout < least {
		t.Errorf("the drain gives up after %v, it may take %v", timeout, least)
	}
	if least := timeout + 10*time.Second; grace < least {
		t.Errorf("the pod is killed after %v, its node may take %v", grace, least)
	}
}

// checkReferences: each mounted file is where the options say, and nothing is mounted for
// nobody.
func checkReferences(t *testing.T, o *objects) {
	t.Helper()
	spec, c := o.node(t)
	files := make(map[string]bool)
	for _, m := range c.VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name == m.Name {
				for _, path := range filesOf(v) {
					files[m.MountPath+"/"+path] = false
				}
			}
		}
	}
	uses := []string{envOf(c, "STOCKMESH_CONFIG")}
	for key, v := range o.options(t) {
		if s, ok := v.(string); ok && strings.HasPrefix(s, "/") && key != "data" {
			uses = append(uses, s)
		}
	}
	for _, path := range uses {
		if _, ok := files[path]; !ok {
			t.Errorf("option names %s, mounted are %v", path, slices.Sorted(maps.Keys(files)))
		}
		files[path] = true
	}
	for path, used := range files {
		if !used {
			t.Errorf("%s is mounted, and no option names it", path)
		}
	}
	if len(spec.Volumes)+1 != len(c.VolumeMounts) {
		t.Errorf("%d volumes and data, %d mounts", len(spec.Volumes), len(c.VolumeMounts))
	}
}

func filesOf(v core.Volume) (paths []string) {
	var items []core.KeyToPath
	switch {
	case v.Secret != nil:
		items = v.Secret.Items
	case v.ConfigMap != nil && v.Name == "config":
		return []string{"node.yaml"}
	case v.ConfigMap != nil:
		items = v.ConfigMap.Items
	}
	for _, i := range items {
		paths = append(paths, i.Path)
	}
	return paths
}

// checkCertificates: those that cert-manager would make are good for the addresses that
// the nodes tell, and say what nodes ask for.
func checkCertificates(t *testing.T, o *objects) {
	t.Helper()
	for _, c := range o.certificates {
		names := x509.Certificate{DNSNames: c.Spec.DNSNames}
		told := []string{"STOCKMESH_ADVERTISE"}
		if strings.HasSuffix(c.Name, "-node-tls") {
			told = []string{"STOCKMESH_ADVERTISE_CLUSTER", "STOCKMESH_ADVERTISE_LINK"}
			want := "stockmesh://" + o.options(t)["region"].(string) + "/" + one(t, o.sets).Name
			if !slices.Equal(c.Spec.URIs, []string{want}) {
				t.Errorf("%s: URIs %v, want %s", c.Name, c.Spec.URIs, want)
			}
		}
		for _, p := range podsOf(t, o) {
			for _, name := range told {
				address := p.env[name]
				if _, rest, ok := strings.Cut(address, "://"); ok {
					address = rest
				}
				host, _, err := net.SplitHostPort(address)
				if err != nil && address == "" || name == "STOCKMESH_ADVERTISE" && len(o.ingresses)+len(o.routes) > 0 {
					continue // not told, or of the proxy, which has a certificate of its own
				}
				if err := names.VerifyHostname(host); err != nil {
					t.Errorf("%s is told %s=%s: %v", p.name, name, p.env[name], err)
				}
			}
		}
	}
}

func within(part, all map[string]string) bool {
	for k, v := range part {
		if all[k] != v {
			return false
		}
	}
	return true
}

func durationAfter(t *testing.T, command []string, flag string) time.Duration {
	t.Helper()
	i := slices.Index(command, flag)
	if i < 0 || i+1 == len(command) {
		t.Fatalf("%v has no %s", command, flag)
	}
	d, err := time.ParseDuration(command[i+1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRollsOnlyWhenItMust: pods are made anew when options change, not when labels or
// Secrets' names do that they needn't know.
func TestRollsOnlyWhenItMust(t *testing.T) {
	t.Parallel()
	template := func(values string) (string, meta.ObjectMeta) {
		set := one(t, render(t, release{values: valuesOpen + values}).sets)
		return set.Spec.Template.Annotations["checksum/config"], set.Spec.Template.ObjectMeta
	}
	before, same := template("")
	if after, _ := template("config: {heartbeat: 20s}"); after == before || before == "" {
		t.Error("pods go on with old options")
	}
	if after, now := template("service: {type: NodePort}\nmonitoring: {serviceMonitor: {enabled: true}}"); after != before || !maps.Equal(same.Labels, now.Labels) {
		t.Error("pods are made anew for what they don't see")
	}
}

// TestMeshServices: each node of a region has its own, at the port it tells.
func TestMeshServices(t *testing.T) {
	t.Parallel()
	o := render(t, matrix["node ports"])
	for _, p := range podsOf(t, o) {
		s := o.service(t, p.name+"-mesh")
		if s.Spec.Selector["statefulset.kubernetes.io/pod-name"] != p.name || !s.Spec.PublishNotReadyAddresses {
			t.Errorf("%s leads to %v", s.Name, s.Spec.Selector)
		}
		for env, port := range map[string]string{"STOCKMESH_ADVERTISE_WAN": "wan", "STOCKMESH_ADVERTISE_LINK": "links"} {
			_, told, err := net.SplitHostPort(p.env[env])
			if want := portOf(t, s, port).NodePort; err != nil || told != strconv.Itoa(int(want)) {
				t.Errorf("%s tells %s=%s, its Service has %d", p.name, env, p.env[env], want)
			}
		}
	}
	annotated := render(t, matrix["load balancers"]).service(t, "eu-stockmesh-2-mesh")
	if got := annotated.Annotations["host"]; got != "eu-stockmesh-2.mesh.example.com" {
		t.Errorf("annotation %q", got)
	}
}

func portOf(t *testing.T, s *core.Service, name string) core.ServicePort {
	t.Helper()
	for _, p := range s.Spec.Ports {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("Service %s has no port %s", s.Name, name)
	return core.ServicePort{}
}
