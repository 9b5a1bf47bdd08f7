package helm_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

const alertsFile = "stockmesh/files/alerts.yaml"

// scrapeEvery is the time between two samples of a scene's series, and between two looks
// at the rules.
const scrapeEvery = 30 * time.Second

// queries is Prometheus' own parser, and language without what is still experimental.
var queries = parser.NewParser(parser.Options{})

// readAlerts parses the rule file as Prometheus does.
func readAlerts(t *testing.T) (list []rulefmt.Rule) {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.UTF8Validation, queries, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(errs) > 0 {
		t.FailNow()
	}
	for _, g := range groups.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// history is what Prometheus recorded, a Queryable.
type history struct {
	series []storage.Series
	end    time.Time // of the longest series
}

// sceneStart is some moment; series begin there.
var sceneStart = time.Unix(1_700_000_000, 0)

// record reads a scene: lines of an instance, a series and its values in promtool's
// notation, as "eu-0 stockmesh_ready 1x10". The instance's name up to the "-" is its job.
func record(t *testing.T, scene string) *history {
	t.Helper()
	h := &history{end: sceneStart}
	for line := range strings.Lines(scene) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		instance, series, _ := strings.Cut(line, " ")
		set, values, err := queries.ParseSeriesDesc(series)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		h.add(scraped(set, instance), values)
	}
	return h
}

// scraped gives a series the labels of its target.
func scraped(set labels.Labels, instance string) labels.Labels {
	job, _, _ := strings.Cut(instance, "-")
	b := labels.NewBuilder(set)
	b.Set("namespace", "shop").Set("job", job).Set("instance", instance).Set("pod", instance)
	return b.Labels()
}

func (h *history) add(set labels.Labels, values []parser.SequenceValue) {
	var samples []chunks.Sample
	for i, v := range values {
		if v.Omitted {
			continue
		}
		at := sceneStart.Add(time.Duration(i) * scrapeEvery)
		samples = append(samples, sample{at.UnixMilli(), v.Value})
		if at.After(h.end) {
			h.end = at
		}
	}
	h.series = append(h.series, storage.NewListSeries(set, samples))
}

// Querier implements storage.Queryable.
func (h *history) Querier(_, _ int64) (storage.Querier, error) { return querier{h}, nil }

type querier struct{ of *history }

// Select implements storage.Querier.
func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &found{at: -1}
	for _, s := range q.of.series {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
			found.series = append(found.series, s)
		}
	}
	return found
}

// LabelValues implements storage.Querier; no rule asks.
func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier; no rule asks.
func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// Close implements storage.Querier.
func (querier) Close() error { return nil }

// found is a storage.SeriesSet.
type found struct {
	series []storage.Series
	at     int
}

func (f *found) Next() bool                        { f.at++; return f.at < len(f.series) }
func (f *found) At() storage.Series                { return f.series[f.at] }
func (f *found) Err() error                        { return nil }
func (f *found) Warnings() annotations.Annotations { return nil }

// alarm is an alert that fires.
type alarm struct {
	labels map[string]string
	value  float64 // of the expression, at the end
}

// alarms holds a rule against a history: which alerts fire at its end, and whether any
// did at some time.
func alarms(t *testing.T, engine *promql.Engine, h *history, expr string, hold time.Duration) (atEnd []alarm, ever bool) {
	t.Helper()
	q, err := engine.NewRangeQuery(t.Context(), h, nil, expr, sceneStart, h.end, scrapeEvery)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	result, err := q.Exec(t.Context()).Matrix()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	for _, s := range result {
		fired := false
		since, before := int64(-1), int64(-1)
		for _, p := range s.Floats {
			if since < 0 || p.T-before > scrapeEvery.Milliseconds() {
				since = p.T
			}
			before = p.T
			fired = p.T-since >= hold.Milliseconds()
			ever = ever || fired
		}
		if fired && before == h.end.UnixMilli() {
			set := s.Metric.Map()
			delete(set, model.MetricNameLabel)
			atEnd = append(atEnd, alarm{set, s.Floats[len(s.Floats)-1].F})
		}
	}
	return atEnd, ever
}

func newEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, Parser: queries,
		EnableAtModifier: true, EnableNegativeOffset: true,
	})
}

// String tells an alarm by its labels.
func (a alarm) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(a.labels)) {
		parts = append(parts, fmt.Sprintf("%s=%s", name, a.labels[name]))
	}
	return strings.Join(parts, " ")
}
