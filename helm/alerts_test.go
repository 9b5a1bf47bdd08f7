package helm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
)

// Each alert fires when it should, on what it should, and stays quiet otherwise.
func TestAlertsFire(t *testing.T) {
	engine := newEngine()
	rules := alertsByName(t)
	for _, d := range drills() {
		rule, ok := rules[d.alert]
		if !ok {
			t.Errorf("drill of %s: there is no such alert", d.alert)
			continue
		}
		if err := d.hold(t, engine, rule.Expr, time.Duration(rule.For)); err != nil {
			t.Errorf("%s: %v", d.alert, err)
		}
		delete(rules, d.alert)
	}
	for name := range rules {
		t.Errorf("%s has no drill: nothing shows that it fires", name)
	}
}

// A drill without both sides shows little.
func TestAlertDrillsHaveBothSides(t *testing.T) {
	for _, d := range drills() {
		if len(d.fires) == 0 || len(d.quiet) == 0 {
			t.Errorf("%s: %d scenes in which it fires, %d in which it doesn't; want some of both", d.alert, len(d.fires), len(d.quiet))
		}
	}
}

// hold returns what is wrong with an expression in the drill's scenes.
func (d *drill) hold(t *testing.T, engine *promql.Engine, expr string, hold time.Duration) error {
	t.Helper()
	for _, f := range d.fires {
		got, _ := alarms(t, engine, record(t, f.scene), expr, hold)
		if len(got) != 1 || got[0].on() != f.on {
			return fmt.Errorf("fires on %v, want once on %q, in%s", got, f.on, f.scene)
		}
	}
	for _, scene := range d.quiet {
		if _, ever := alarms(t, engine, record(t, scene), expr, hold); ever {
			return fmt.Errorf("fires in\n%s", scene)
		}
	}
	return nil
}

// on leaves out the labels that follow from others in scenes.
func (a alarm) on() string {
	delete(a.labels, "namespace")
	delete(a.labels, "pod")
	return a.String()
}

func alertsByName(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	rules := make(map[string]rulefmt.Rule)
	for _, rule := range readAlerts(t) {
		if _, twice := rules[rule.Alert]; twice || rule.Alert == "" {
			t.Errorf("rule %q: want alerts, each once", rule.Alert)
		}
		rules[rule.Alert] = rule
	}
	return rules
}

// What is told with an alert is complete, expands, and has its heading in the page.
func TestAlertAnnotations(t *testing.T) {
	page, err := os.ReadFile("OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range readAlerts(t) {
		if s := rule.Labels["severity"]; s != "page" && s != "ticket" || len(rule.Labels) != 1 {
			t.Errorf("%s: labels %v, want severity page or ticket", rule.Alert, rule.Labels)
		}
		if want := "OPERATIONS.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %q", rule.Alert, rule.Annotations["runbook_url"], want)
		}
		if !strings.Contains(string(page), "\n### "+rule.Alert+"\n") {
			t.Errorf("%s has no heading in OPERATIONS.md", rule.Alert)
		}
		for _, name := range []string{"summary", "description", "runbook"} {
			if rule.Annotations[name] == "" {
				t.Errorf("%s has no %s", rule.Alert, name)
			}
		}
	}
	for line := range strings.Lines(string(page)) {
		name, is := strings.CutPrefix(strings.TrimSpace(line), "### Stockmesh")
		if is && !strings.Contains(rulesText(t), "alert: Stockmesh"+name+"\n") {
			t.Errorf("OPERATIONS.md explains Stockmesh%s, which is no alert", name)
		}
	}
}

func rulesText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Annotations expand for what fires, and name only labels that it has.
func TestAlertTemplates(t *testing.T) {
	engine := newEngine()
	rules := alertsByName(t)
	for _, d := range drills() {
		rule := rules[d.alert]
		for _, f := range d.fires {
			fired, _ := alarms(t, engine, record(t, f.scene), rule.Expr, time.Duration(rule.For))
			for _, a := range fired {
				for name, text := range rule.Annotations {
					if out, err := expand(t, a, text); err != nil || strings.Contains(out, "<no value>") || strings.Contains(out, "NaN") || strings.Contains(out, "  ") {
						t.Errorf("%s, %s: %q, %v", d.alert, name, out, err)
					}
				}
			}
		}
	}
}

// expand is what Prometheus does with an annotation, but that a label which the alert
// does not have is an error here.
func expand(t *testing.T, a alarm, text string) (string, error) {
	t.Helper()
	data := template.AlertTemplateData(a.labels, nil, "", promql.Sample{Metric: labels.FromMap(a.labels), F: a.value})
	const defs = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
	return template.NewTemplateExpander(t.Context(), defs+text, "annotation", data, model.Time(0), nil, nil, []string{"missingkey=error"}).Expand()
}

// A rule that is changed by accident is noticed: each mutant fails some scene.
func TestAlertMutants(t *testing.T) {
	engine := newEngine()
	rules := alertsByName(t)
	mutants := 0
	for _, d := range drills() {
		rule := rules[d.alert]
		for _, m := range mutantsOf(t, rule.Expr) {
			mutants++
			survived := d.hold(t, engine, m.expr, time.Duration(rule.For)) == nil
			if reason, same := sameAlert[d.alert+": "+m.what]; same == survived {
				continue
			} else if same {
				t.Errorf("%s: %s is noticed, though %s", d.alert, m.what, reason)
			} else {
				t.Errorf("%s: nothing notices %s", d.alert, m.what)
			}
		}
	}
	if mutants < 5*len(rules) {
		t.Errorf("%d mutants of %d alerts: some are missing", mutants, len(rules))
	}
}

// sameAlert are mutants that change nothing that matters, and why.
var sameAlert = map[string]string{
	`StockmeshNodeMissing: stockmesh_region_nodes{kind="expected"} without kind="expected"`:                                                                                                 "more nodes than expected are none that are missing",
	`StockmeshMirrorStalled: min for max in max by (cluster, namespace, job, peer) (min_over_time(stockmesh_mirror_behind_rows[5m]) > 0 and resets(stockmesh_mirror_behind_rows[5m]) == 0)`: "any node that sees it will do, and the figure is only told",
}

// mutant is a rule with one thing changed.
type mutant struct{ what, expr string }

// mutantsOf changes each threshold by a factor of two, turns each comparison and each
// min and max round, and leaves out each matcher and each condition.
func mutantsOf(t *testing.T, expr string) (list []mutant) {
	t.Helper()
	for n := 0; ; n++ {
		e, err := queries.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		m := &mutator{left: n}
		e = m.change(e)
		if m.did == "" {
			return list
		}
		list = append(list, mutant{m.did, e.String()})
	}
}

// mutator makes the change that comes after left others.
type mutator struct {
	left int
	did  string
}

// turn says whether it is the turn of this change.
func (m *mutator) turn(what string, args ...any) bool {
	m.left--
	if m.left == -1 {
		m.did = fmt.Sprintf(what, args...)
	}
	return m.left == -1
}

func (m *mutator) change(e parser.Expr) parser.Expr {
	switch e := e.(type) {
	case *parser.BinaryExpr:
		return m.binary(e)
	case *parser.ParenExpr:
		e.Expr = m.change(e.Expr)
	case *parser.AggregateExpr:
		m.aggregate(e)
	case *parser.Call:
		for i := range e.Args {
			e.Args[i] = m.change(e.Args[i])
		}
	case *parser.MatrixSelector:
		e.VectorSelector = m.change(e.VectorSelector)
	case *parser.VectorSelector:
		m.matchers(e)
	case *parser.NumberLiteral:
		m.number(e)
	}
	return e
}

func (m *mutator) binary(e *parser.BinaryExpr) parser.Expr {
	for from, to := range turned {
		if e.Op == from && m.turn("%v for %v in %v", to, from, e) {
			e.Op = to
			return e
		}
	}
	if e.Op.IsSetOperator() && m.turn("only the left of %v", e) {
		return e.LHS
	}
	if (e.Op == parser.LOR || e.Op == parser.LAND) && e.VectorMatching.On == false && m.turn("only the right of %v", e) {
		return e.RHS
	}
	e.LHS, e.RHS = m.change(e.LHS), m.change(e.RHS)
	return e
}

// turned are comparisons and what is made of them.
var turned = map[parser.ItemType]parser.ItemType{
	parser.GTR: parser.LSS, parser.LTE: parser.GTR, parser.EQLC: parser.NEQ,
}

func (m *mutator) aggregate(e *parser.AggregateExpr) {
	for from, to := range map[parser.ItemType]parser.ItemType{parser.MIN: parser.MAX, parser.MAX: parser.MIN} {
		if e.Op == from && m.turn("%v for %v in %v", to, from, e) {
			e.Op = to
			return
		}
	}
	e.Expr = m.change(e.Expr)
}

func (m *mutator) matchers(e *parser.VectorSelector) {
	for i, matcher := range e.LabelMatchers {
		if matcher.Name != model.MetricNameLabel && m.turn("%v without %v", e, matcher) {
			e.LabelMatchers = append(e.LabelMatchers[:i:i], e.LabelMatchers[i+1:]...)
			return
		}
	}
}

func (m *mutator) number(e *parser.NumberLiteral) {
	others := []float64{e.Val * 2, e.Val / 2}
	if e.Val == 0 {
		others = []float64{1}
	}
	for _, other := range others {
		if m.turn("%v for %v", other, e.Val) {
			e.Val = other
			return
		}
	}
}
