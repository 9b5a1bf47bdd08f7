package helm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Everything that the alerts and the dashboard ask for is on a running node's /metrics,
// with these labels and values; everything of ours that is there is asked for; and nodes
// that run well raise no alert.
func TestMetricsExist(t *testing.T) {
	nodes := startWatched(t)
	use(t, nodes)
	inUse := queriesInUse(t)
	var series []value
	var missing []string
	// Some are there once another node was heard of, some after a second of that.
	soon(func() bool {
		series = scrape(t, nodes)
		missing = missingOf(t, series, inUse)
		return len(missing) == 0
	})
	for _, m := range missing {
		t.Error(m)
	}
	unasked(t, series, inUse)
	quiet(t, nodes)
}

// missingOf says what expressions ask for that is not among the series.
func missingOf(t *testing.T, series []value, inUse map[string]string) (missing []string) {
	t.Helper()
	for where, expr := range inUse {
		for _, s := range selectors(t, expr) {
			if err := exists(series, s); err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", where, err))
			}
		}
	}
	return missing
}

// unasked reports what is measured and shown nowhere.
func unasked(t *testing.T, series []value, inUse map[string]string) {
	t.Helper()
	asked := make(map[string]bool)
	for _, expr := range inUse {
		for _, s := range selectors(t, expr) {
			asked[baseName(s.Name)] = true
		}
	}
	for _, s := range series {
		if name := baseName(s.set.Get(model.MetricNameLabel)); strings.HasPrefix(name, "stockmesh_") && !asked[name] {
			t.Errorf("%s is in neither the dashboard nor the alerts", name)
			asked[name] = true
		}
	}
}

// value is one line of /metrics, with its target's labels.
type value struct {
	set labels.Labels
	f   float64
}

func scrape(t *testing.T, nodes []*watched) (list []value) {
	t.Helper()
	for _, n := range nodes {
		text, err := get("http://" + n.metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		p := expfmt.NewTextParser(model.UTF8Validation)
		families, err := p.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", n.instance, err)
		}
		options := &expfmt.DecodeOptions{Timestamp: model.Time(0)}
		for _, family := range families {
			samples, err := expfmt.ExtractSamples(options, []*dto.MetricFamily{family}...)
			if err != nil {
				t.Fatalf("%s: %v", n.instance, err)
			}
			for _, s := range samples {
				list = append(list, value{scraped(labelsOf(s.Metric), n.instance), float64(s.Value)})
			}
		}
		list = append(list, value{scraped(labels.FromStrings(model.MetricNameLabel, "up"), n.instance), 1})
	}
	return list
}

func labelsOf(m model.Metric) labels.Labels {
	set := make(map[string]string, len(m))
	for name, v := range m {
		set[string(name)] = string(v)
	}
	return labels.FromMap(set)
}

// queriesInUse are the expressions of alerts and dashboard, by where they stand.
func queriesInUse(t *testing.T) map[string]string {
	t.Helper()
	in := dashboardQueries(t)
	for _, rule := range readAlerts(t) {
		in[rule.Alert] = rule.Expr
	}
	return in
}

func selectors(t *testing.T, expr string) (list []*parser.VectorSelector) {
	t.Helper()
	e, err := queries.ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			list = append(list, s)
		}
		return nil
	})
	return list
}

// exists says what is missing of what a selector asks for: a name, a label or a value.
func exists(series []value, s *parser.VectorSelector) error {
	for n := range s.LabelMatchers {
		// The name comes last in the list: it is what everything else is of.
		some := append([]*labels.Matcher{nameOf(s)}, s.LabelMatchers[:n+1]...)
		if !slices.ContainsFunc(series, func(v value) bool { return matches(v.set, some) }) {
			return fmt.Errorf("no running node has %s with %v", s.Name, s.LabelMatchers[n])
		}
	}
	return nil
}

func nameOf(s *parser.VectorSelector) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, s.Name)
}

// matches holds labels against matchers, and wants each label to be there.
func matches(set labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool {
		return !set.Has(m.Name) || !m.Matches(set.Get(m.Name))
	})
}

// baseName is the name under which a histogram's series are one metric.
func baseName(name string) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

// quiet waits until no alert would fire if everything stayed as it is. How full the
// machine's disk is says nothing about the nodes.
func quiet(t *testing.T, nodes []*watched) {
	t.Helper()
	engine := newEngine()
	rules := readAlerts(t)
	var loud []string
	eventually(t, "nodes that run well raise no alert", func() bool {
		h := lasting(scrape(t, nodes))
		loud = nil
		for _, rule := range rules {
			if strings.HasPrefix(rule.Alert, "StockmeshDisk") {
				continue
			}
			if fired, _ := alarms(t, engine, h, rule.Expr, time.Duration(rule.For)); len(fired) > 0 {
				loud = append(loud, fmt.Sprint(rule.Alert, fired))
			}
		}
		if len(loud) > 0 {
			t.Log(loud)
		}
		return len(loud) == 0
	})
}

// lasting is a quarter of an hour in which nothing changes.
func lasting(series []value) *history {
	h := &history{end: sceneStart}
	for _, v := range series {
		h.add(v.set, slices.Repeat([]parser.SequenceValue{{Value: v.f}}, 31))
	}
	return h
}
