package helm_test

import (
	"context"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// installed is a cluster that has one ConfigMap, as templates look into it.
type installed struct {
	dynamic.NamespaceableResourceInterface
	name, namespace string
	data            map[string]any
}

// GetClientFor implements engine.ClientProvider.
func (i installed) GetClientFor(string, string) (dynamic.NamespaceableResourceInterface, bool, error) {
	return i, true, nil
}

// Namespace implements dynamic.NamespaceableResourceInterface.
func (i installed) Namespace(namespace string) dynamic.ResourceInterface {
	i.namespace = namespace
	return i
}

// Get implements dynamic.ResourceInterface.
func (i installed) Get(_ context.Context, name string, _ meta.GetOptions, _ ...string) (*unstructured.Unstructured, error) {
	if name != i.name || i.namespace != "shop" {
		return nil, kerrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &unstructured.Unstructured{Object: map[string]any{"data": i.data}}, nil
}

// TestUpgrade: what is fixed at the first start is held fast, all else may change.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	c, err := loader.LoadDir(chart)
	if err != nil {
		t.Fatal(err)
	}
	for name, step := range map[string]struct {
		before map[string]any // of the cluster's ConfigMap
		values map[string]any
		want   string // "" is no error
	}{
		"first":       {nil, map[string]any{"region": "us"}, ""},
		"same":        {map[string]any{"node.yaml": "{region: eu, shards: 4, expect: 3}"}, map[string]any{"region": "eu", "shards": 4}, ""},
		"grow":        {map[string]any{"node.yaml": "{region: eu, shards: 1, expect: 3}"}, map[string]any{"region": "eu", "replicas": 5}, ""},
		"shards":      {map[string]any{"node.yaml": "{region: eu, shards: 4, expect: 3}"}, map[string]any{"region": "eu"}, "shards is 4 and can't become 1"},
		"region":      {map[string]any{"node.yaml": "{region: eu, shards: 1, expect: 3}"}, map[string]any{"region": "us"}, "region is eu and can't become us"},
		"one to many": {map[string]any{"node.yaml": "{region: eu, shards: 1, expect: 1}"}, map[string]any{"region": "eu"}, "replicas is 1 and can't become 3"},
		"many to one": {map[string]any{"node.yaml": "{region: eu, shards: 1, expect: 3}"}, map[string]any{"region": "eu", "replicas": 1}, "stockctl restore"},
		"another's":   {map[string]any{"something": "else"}, map[string]any{"region": "eu"}, ""},
	} {
		step.values["insecure"] = true
		values, err := util.ToRenderValues(c, step.values, common.ReleaseOptions{Name: "eu", Namespace: "shop", IsUpgrade: true}, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		there := installed{name: "eu-stockmesh", data: step.before}
		if step.before == nil {
			there.name = ""
		}
		_, err = engine.RenderWithClientProvider(c, values, there)
		switch {
		case step.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)):
			t.Errorf("%s: error is %v, want %q in it", name, err, step.want)
		}
	}
}
