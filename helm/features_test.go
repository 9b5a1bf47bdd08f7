package helm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestMonitoring: alerts and dashboard get to the cluster as they are; `{{ }}` in them is
// Prometheus' and Grafana's.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	o := render(t, release{values: valuesOpen + "monitoring: {serviceMonitor: {enabled: true, labels: {release: p}}, prometheusRule: {enabled: true, labels: {release: p}, runbooks: 'https://wiki.example.com/stock'}, dashboard: {enabled: true}}"})
	text, err := os.ReadFile(filepath.Join(chart, "files", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(string(text), "OPERATIONS.md#", "https://wiki.example.com/stock#")), &want); err != nil {
		t.Fatal(err)
	}
	rule := one(t, o.rules)
	if diff := cmp.Diff(want, rule.Spec); diff != "" || len(want.Groups) == 0 {
		t.Errorf("%d groups of alerts (-file +rendered):\n%s", len(want.Groups), diff)
	}
	if rule.Labels["release"] != "p" || one(t, o.monitors).Labels["release"] != "p" {
		t.Error("Prometheus doesn't select them")
	}
	// Alerts and dashboard name a node by its instance.
	relabel := one(t, o.monitors).Spec.Endpoints[0].RelabelConfigs
	if len(relabel) != 1 || relabel[0].TargetLabel != "instance" || !slices.Equal(relabel[0].SourceLabels, []monitoring.LabelName{"__meta_kubernetes_pod_name"}) {
		t.Errorf("targets are named by %+v", relabel)
	}
	files, err := filepath.Glob(filepath.Join(chart, "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no dashboards", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range o.configs {
			found = found || c.Labels["grafana_dashboard"] == "1" && strings.TrimSpace(c.Data[filepath.Base(file)]) == strings.TrimSpace(string(text))
		}
		if !found {
			t.Errorf("%s is not what Grafana gets", file)
		}
	}
}

// TestRoutes: a WebSocket may stay, and clients are told the public name.
func TestRoutes(t *testing.T) {
	t.Parallel()
	o := render(t, matrix["ingress"])
	in := one(t, o.ingresses)
	if in.Annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] != "3600" || *in.Spec.IngressClassName != "nginx" {
		t.Errorf("annotations %v", in.Annotations)
	}
	if len(in.Spec.Rules) != 2 || len(in.Spec.TLS[0].Hosts) != 2 {
		t.Errorf("rules %v", in.Spec.Rules)
	}
	for _, r := range in.Spec.Rules {
		back := r.HTTP.Paths[0].Backend.Service
		portOf(t, o.service(t, back.Name), back.Port.Name)
	}
	if got := podsOf(t, o)[0].env["STOCKMESH_ADVERTISE"]; got != "wss://shop.example.com" {
		t.Errorf("clients are told %q", got)
	}
	if got := one(t, render(t, matrix["ingress and TLS"]).ingresses).Annotations["nginx.ingress.kubernetes.io/backend-protocol"]; got != "HTTPS" {
		t.Errorf("the Ingress speaks %q to nodes with TLS", got)
	}
	o = render(t, matrix["gateway"])
	rule := one(t, o.routes).Spec.Rules[0]
	if *rule.Timeouts.Request != "0s" || *rule.Timeouts.BackendRequest != "0s" {
		t.Errorf("timeouts %v", rule.Timeouts)
	}
	back := rule.BackendRefs[0]
	if s := o.service(t, string(back.Name)); s.Spec.Ports[0].Port != int32(*back.Port) {
		t.Errorf("the route leads to port %d", *back.Port)
	}
}

// TestPolicyGoesOut: nodes reach the servers they are told of, and nobody else.
func TestPolicyGoesOut(t *testing.T) {
	t.Parallel()
	ports := func(values string) (list []string) {
		for _, rule := range one(t, render(t, release{values: values + "replicas: 1\n"}).policies).Spec.Egress {
			for _, p := range rule.Ports {
				list = append(list, fmt.Sprintf("%d/%s to %d", p.Port.IntVal, *p.Protocol, len(rule.To)))
			}
		}
		return list
	}
	names := []string{"53/UDP to 0", "53/TCP to 0"}
	for values, want := range map[string][]string{
		valuesOpen: nil,
		valuesJWKS: {"443/TCP to 0"},
		"auth: {jwks: {url: 'https://id:8443/keys'}}\ntracing: {endpoint: 'http://otel:4318'}\nnetworkPolicy: {tracesTo: [{podSelector: {}}]}\n": {"8443/TCP to 0", "4318/TCP to 1"},
		valuesOpen + "tracing: {endpoint: 'http://otel'}\n":       {"80/TCP to 0"},
		valuesOpen + "tracing: {endpoint: 'https://[::1]/v1'}\n":  {"443/TCP to 0"},
		valuesOpen + "tracing: {endpoint: 'https://[::1]:99/'}\n": {"99/TCP to 0"},
	} {
		if diff := cmp.Diff(append(names, want...), ports(values)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", values, diff)
		}
	}
}

// TestProbePod: it goes by the Service, with what the edge port asks for.
func TestProbePod(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]map[string]string{
		"three nodes":    {"STOCKMESH_ENDPOINTS": "http://eu-stockmesh.shop.svc:8080"},
		"load balancers": {"STOCKMESH_ENDPOINTS": "http://eu-stockmesh.shop.svc:443"},
		"secrets":        {"STOCKMESH_ENDPOINTS": "http://eu-stockmesh.shop.svc:8080", "STOCKMESH_TLS_CA": "/etc/stockmesh/ca/ca.crt", "STOCKMESH_TOKEN_FILE": "/etc/stockmesh/token/token"},
		"cert-manager":   {"STOCKMESH_ENDPOINTS": "https://eu-stockmesh.shop.svc:8080", "STOCKMESH_TLS_CA": "/etc/stockmesh/ca/ca.crt"},
	} {
		o := render(t, matrix[name])
		pod := one(t, o.pods)
		got := map[string]string{}
		for _, e := range pod.Spec.Containers[0].Env {
			got[e.Name] = e.Value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		files := map[string]bool{}
		for _, m := range pod.Spec.Containers[0].VolumeMounts {
			for _, v := range pod.Spec.Volumes {
				if v.Name == m.Name {
					files[m.MountPath+"/"+v.Secret.Items[0].Path] = true
				}
			}
		}
		for _, path := range []string{got["STOCKMESH_TLS_CA"], got["STOCKMESH_TOKEN_FILE"]} {
			if path != "" && !files[path] {
				t.Errorf("%s: %s is not mounted", name, path)
			}
		}
		if pod.Annotations["helm.sh/hook"] != "test" || pod.Spec.RestartPolicy != core.RestartPolicyNever {
			t.Errorf("%s: it is no test: %v", name, pod.Annotations)
		}
		if image := pod.Spec.Containers[0].Image; image != one(t, o.sets).Spec.Template.Spec.Containers[0].Image {
			t.Errorf("%s: the test's image is %s", name, image)
		}
	}
}

// TestNumbersStayWhole: a million is a million for the node.
func TestNumbersStayWhole(t *testing.T) {
	t.Parallel()
	o := render(t, matrix["the rest"])
	c := configured(t, o, podsOf(t, o)[0])
	if c.RateLimit != 1_000_000 || c.TraceRatio != 0.5 || c.KeyWindow.Hours() != 48 {
		t.Errorf("rate limit %d, trace ratio %v, key window %v", c.RateLimit, c.TraceRatio, c.KeyWindow)
	}
}

// TestNotes: what is open is told, what is not is not.
func TestNotes(t *testing.T) {
	t.Parallel()
	// Only an installation shows them; a dry one needs no cluster.
	notes := func(r release) string {
		out, err := helm(t, append([]string{"install", "eu", chart, "--dry-run=client", "--namespace", "shop"}, r.args(t)...)...)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(out, "NOTES:")
		return text
	}
	insecure := notes(release{values: valuesOpen + "service: {type: LoadBalancer}"})
	for _, want := range []string{"INSECURE", "set publicURL", "set auth.jwks", "set nodeTLS", "Membership is not encrypted", "helm test eu --namespace shop", "presets/peer.yaml"} {
		if !strings.Contains(insecure, want) {
			t.Errorf("no word of %q in:\n%s", want, insecure)
		}
	}
	secure := notes(release{files: []string{"presets/region.yaml", "presets/peer.yaml"}})
	for _, want := range []string{"INSECURE", "set auth", "not encrypted", "presets/peer.yaml", "needs test.tokenSecret", "publicURL"} {
		if strings.Contains(secure, want) {
			t.Errorf("a word of %q in:\n%s", want, secure)
		}
	}
	if !strings.Contains(secure, "eu-stockmesh-1.mesh.us.example.com:7947") {
		t.Errorf("it doesn't say how others join:\n%s", secure)
	}
}
