package helm_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// chart is the folder of the chart under test.
const chart = "stockmesh"

// helmProgram is where the go command keeps the helm of go.mod, built once.
var helmProgram = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "helm").Output()
	if err != nil {
		return "", fmt.Errorf("build helm: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// helm runs helm, which finds no cluster and none of the user's settings.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := helmProgram()
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "XDG_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w\n%s%s", strings.Join(args, " "), err, &out, &errOut)
	}
	return out.String(), nil
}

// release is a chart with values, as one would install it.
type release struct {
	name   string // "" is eu
	values string // YAML
	files  []string
}

func (r release) args(t *testing.T) (args []string) {
	t.Helper()
	for _, f := range r.files {
		args = append(args, "-f", filepath.Join(chart, f))
	}
	if r.values == "" {
		return args
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(r.values), 0o600); err != nil {
		t.Fatal(err)
	}
	return append(args, "-f", file)
}

func (r release) template(t *testing.T, more ...string) (string, error) {
	t.Helper()
	name := r.name
	if name == "" {
		name = "eu"
	}
	args := append([]string{"template", name, chart, "--namespace", "shop"}, more...)
	return helm(t, append(args, r.args(t)...)...)
}

// objects are what a release would put into a cluster.
type objects struct {
	sets         []*apps.StatefulSet
	pods         []*core.Pod
	services     []*core.Service
	configs      []*core.ConfigMap
	accounts     []*core.ServiceAccount
	policies     []*networking.NetworkPolicy
	ingresses    []*networking.Ingress
	budgets      []*policy.PodDisruptionBudget
	certificates []*certmanager.Certificate
	routes       []*gateway.HTTPRoute
	monitors     []*monitoring.ServiceMonitor
	rules        []*monitoring.PrometheusRule
}

func render(t *testing.T, r release) *objects {
	t.Helper()
	text, err := r.template(t)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		if err := o.add(document); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
	}
	return o
}

// add takes one object. A field that its type doesn't have is an error.
func (o *objects) add(document string) error {
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal([]byte(document), &head); err != nil {
		return err
	}
	switch head.APIVersion + " " + head.Kind {
	case " ":
		return nil // nothing but comments
	case "apps/v1 StatefulSet":
		return decode(document, &o.sets)
	case "v1 Pod":
		return decode(document, &o.pods)
	case "v1 Service":
		return decode(document, &o.services)
	case "v1 ConfigMap":
		return decode(document, &o.configs)
	case "v1 ServiceAccount":
		return decode(document, &o.accounts)
	case "networking.k8s.io/v1 NetworkPolicy":
		return decode(document, &o.policies)
	case "networking.k8s.io/v1 Ingress":
		return decode(document, &o.ingresses)
	case "policy/v1 PodDisruptionBudget":
		return decode(document, &o.budgets)
	case "cert-manager.io/v1 Certificate":
		return decode(document, &o.certificates)
	case "gateway.networking.k8s.io/v1 HTTPRoute":
		return decode(document, &o.routes)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return decode(document, &o.monitors)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return decode(document, &o.rules)
	}
	return fmt.Errorf("an object of a kind that nobody looks at: %s %s", head.APIVersion, head.Kind)
}

func decode[T any](document string, list *[]*T) error {
	v := new(T)
	if err := yaml.UnmarshalStrict([]byte(document), v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// one is the only object of its kind.
func one[T any](t *testing.T, list []*T) *T {
	t.Helper()
	if len(list) != 1 {
		t.Fatalf("%d objects of %T, want one", len(list), list)
	}
	return list[0]
}

// service finds one by its name.
func (o *objects) service(t *testing.T, name string) *core.Service {
	t.Helper()
	for _, s := range o.services {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no Service %q", name)
	return nil
}

// node is the pod that the StatefulSet makes copies of, and its container.
func (o *objects) node(t *testing.T) (*core.PodSpec, *core.Container) {
	t.Helper()
	spec := &one(t, o.sets).Spec.Template.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
		t.Fatalf("%d containers", len(spec.Containers))
	}
	return spec, &spec.Containers[0]
}

// options is node.yaml.
func (o *objects) options(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.UnmarshalStrict([]byte(o.file(t)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (o *objects) file(t *testing.T) string {
	t.Helper()
	for _, c := range o.configs {
		if text, ok := c.Data["node.yaml"]; ok {
			return text
		}
	}
	t.Fatal("no node.yaml")
	return ""
}
