package helm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dashboardFile = "stockmesh/dashboards/stockmesh.json"

// grafana is what the tests know of a dashboard. The rest of its JSON is Grafana's.
type grafana struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	ID            *int   `json:"id"`
	Templating    struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Name string `json:"name"`
			Expr string `json:"expr"`
		} `json:"list"`
	} `json:"annotations"`
	Panels []panel `json:"panels"`
}

type variable struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Definition string `json:"definition"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Datasource  *datasource `json:"datasource"`
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		RefID      string      `json:"refId"`
		Expr       string      `json:"expr"`
		Datasource *datasource `json:"datasource"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// gridWidth is that of every dashboard.
const gridWidth = 24

func readDashboard(t *testing.T) *grafana {
	t.Helper()
	files, err := filepath.Glob("stockmesh/dashboards/*.json")
	if err != nil || !slices.Equal(files, []string{dashboardFile}) {
		t.Fatalf("dashboards %v, %v: the tests know one", files, err)
	}
	b, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d grafana
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// A dashboard that Grafana loads, and that says where it comes from.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	if d.UID != "stockmesh" || d.Title == "" || d.ID != nil || d.SchemaVersion < 39 {
		t.Errorf("uid %q, title %q, id %v, schemaVersion %d", d.UID, d.Title, d.ID, d.SchemaVersion)
	}
	ids, titles := make(map[int]bool), make(map[string]bool)
	for i := range d.Panels {
		p := &d.Panels[i]
		if p.ID == 0 || ids[p.ID] || p.Title == "" || titles[p.Title] {
			t.Errorf("panel %d %q: want an id and a title of its own", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if err := p.check(); err != nil {
			t.Errorf("panel %d %q: %v", p.ID, p.Title, err)
		}
		for _, other := range d.Panels[:i] {
			if p.over(&other) {
				t.Errorf("panel %q lies over %q", p.Title, other.Title)
			}
		}
	}
}

func (p *panel) check() error {
	g := p.GridPos
	if g.X < 0 || g.W < 1 || g.X+g.W > gridWidth || g.H < 1 {
		return fmt.Errorf("lies at %+v", g)
	}
	if p.Type == "row" {
		return nil
	}
	if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
		return fmt.Errorf("description %q, unit %q, %d queries", p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
	}
	refs := make(map[string]bool)
	for _, target := range p.Targets {
		if target.RefID == "" || refs[target.RefID] {
			return fmt.Errorf("query %q twice", target.RefID)
		}
		refs[target.RefID] = true
		for _, source := range []*datasource{p.Datasource, target.Datasource} {
			if source == nil || *source != (datasource{"prometheus", "${datasource}"}) {
				return fmt.Errorf("data source %v: want the one that is chosen", source)
			}
		}
	}
	return nil
}

func (p *panel) over(other *panel) bool {
	a, b := p.GridPos, other.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// dashboardQueries are all expressions of the dashboard with its variables filled in as
// Grafana fills them in where all is chosen, by panel.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	d := readDashboard(t)
	in := make(map[string]string)
	add := func(where, expr string) {
		if expr = fillIn.Replace(expr); strings.Contains(expr, "$") {
			t.Errorf("%s: %s holds a variable that isn't known", where, expr)
		}
		in[where] = expr
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			add("panel "+p.Title+", "+target.RefID, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			add("annotation "+a.Name, a.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if query := labelValues.FindStringSubmatch(v.Definition); query != nil {
			add("variable "+v.Name, query[1])
		} else if v.Type == "query" {
			t.Errorf("variable %s: %q is no label_values()", v.Name, v.Definition)
		}
	}
	return in
}

var (
	fillIn      = strings.NewReplacer("$namespace", ".*", "$region", ".*", "$node", ".*", "$__rate_interval", "2m")
	labelValues = regexp.MustCompile(`^label_values\((.*), \w+\)$`)
)

// Each query parses, looks at the chosen nodes only, and speaks Prometheus' language.
func TestDashboardQueries(t *testing.T) {
	for where, expr := range dashboardQueries(t) {
		found := selectors(t, expr)
		if len(found) == 0 {
			t.Errorf("%s asks for nothing", where)
		}
		if !strings.HasPrefix(where, "panel ") {
			continue
		}
		for _, name := range []string{"namespace", "job", "instance"} {
			if !strings.Contains(found[0].String(), name+`=~".*"`) {
				t.Errorf("%s: %s is of every %s, not of the chosen", where, found[0], name)
			}
		}
	}
}
