package helm_test

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

// renderedPod is one of a StatefulSet's pods as its container would find itself.
type renderedPod struct {
	name string
	env  map[string]string
}

// podsOf does what the StatefulSet's controller and the kubelet do: names, and the
// environment with its references filled in.
func podsOf(t *testing.T, o *objects) (pods []renderedPod) {
	t.Helper()
	set := one(t, o.sets)
	_, c := o.node(t)
	for n := range int(*set.Spec.Replicas) {
		p := renderedPod{name: fmt.Sprintf("%s-%d", set.Name, n), env: make(map[string]string)}
		for _, e := range c.Env {
			p.env[e.Name] = filledIn(t, e, p, n)
		}
		pods = append(pods, p)
	}
	return pods
}

// podIP stands for the address that a pod gets.
const podIP = "127.0.0.1"

var reference = regexp.MustCompile(`\$\(([A-Za-z_0-9]+)\)`)

func filledIn(t *testing.T, e core.EnvVar, p renderedPod, ordinal int) string {
	t.Helper()
	if e.ValueFrom == nil {
		return reference.ReplaceAllStringFunc(e.Value, func(s string) string {
			v, earlier := p.env[s[2:len(s)-1]]
			if !earlier {
				t.Errorf("%s refers to %s, which is not set before it", e.Name, s)
			}
			return v
		})
	}
	switch path := e.ValueFrom.FieldRef.FieldPath; path {
	case "metadata.name":
		return p.name
	case "status.podIP":
		return podIP
	case "metadata.labels['apps.kubernetes.io/pod-index']":
		return strconv.Itoa(ordinal)
	default:
		t.Fatalf("%s refers to %s", e.Name, path)
		return ""
	}
}

func envOf(c *core.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// near compares numbers of bytes, but for what rounding makes of them.
func near(got string, want int64) error {
	n, err := strconv.ParseInt(strings.TrimSpace(got), 10, 64)
	if err == nil && math.Abs(float64(n-want)) > 16 {
		err = fmt.Errorf("it is off by %d", n-want)
	}
	return err
}
