package protocol

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// table returns the cells of the first table of a README section.
func table(t *testing.T, section string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("no section %s", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		t.Fatalf("no table in %s", section)
	}
	return rows[1:]
}

var quoted = regexp.MustCompile("`([^`]+)`")

func TestREADMEListsTheOps(t *testing.T) {
	var got []string
	for _, row := range table(t, "Commands") {
		for _, m := range quoted.FindAllStringSubmatch(row[0], -1) {
			got = append(got, m[1])
		}
	}
	var want []string
	for _, op := range Ops() {
		want = append(want, string(op))
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestREADMEListsTheCodes(t *testing.T) {
	got := map[Code]int{}
	for _, row := range table(t, "Errors") {
		status, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		got[Code(strings.Trim(row[0], "`"))] = status
	}
	if d := cmp.Diff(Codes(), got); d != "" {
		t.Error(d)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for name, value := range constants(t, "errors.go", "Code") {
		code, _ := strconv.Unquote(value)
		if _, ok := Codes()[Code(code)]; !ok {
			t.Errorf("%s has no HTTP status", name)
		}
	}
	if Code("nothing").Status() != 500 {
		t.Error("an unknown code is not 500")
	}
}

func TestREADMEListsTheCloseCodes(t *testing.T) {
	want := slices.Sorted(maps.Values(constants(t, "errors.go", "Close")))
	var got []string
	for _, row := range table(t, "Close codes") {
		got = append(got, row[0])
		if strings.HasPrefix(row[0], "40") != (row[2] == "does not reconnect") ||
			strings.HasPrefix(row[0], "41") != (row[2] == "reconnects after a pause") ||
			strings.HasPrefix(row[0], "42") != (row[2] == "reconnects at once elsewhere") {
			t.Errorf("%s says %q", row[0], row[2])
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// constants returns the literal constants of a file whose names start so.
func constants(t *testing.T, file, prefix string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) == 0 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			found[spec.Names[0].Name] = literal.Value
		}
		return true
	})
	if len(found) == 0 {
		t.Fatalf("no constants %s in %s", prefix, file)
	}
	return found
}

func TestREADMEListsTheLimits(t *testing.T) {
	want := map[string]int{
		"bytes of one WebSocket message or HTTP body":            MessageBytesMax,
		"bytes of one `POST /v1/batch`":                          BatchBytesMax,
		"commands of one WebSocket message":                      CommandsMax,
		"commands of one `POST /v1/batch`":                       BatchMax,
		"unanswered commands of one connection":                  InFlightMax,
		"lines of one `reserve` or `sell`":                       LinesMax,
		"selectors of one connection":                            SelectorsMax,
		"movements of one history page":                          HistoryMax,
		"items of one stock page, SKUs of one `get`":             PageMax,
		"bytes of a SKU, location, key, user, reason, reference": NameBytesMax,
		"largest quantity, delta or total":                       QuantityMax,
		"shortest `ttl_ms`":                                      ReserveMSMin,
		"`ttl_ms` of a `reserve` that names none":                ReserveMSDefault,
		"longest `ttl_ms`":                                       ReserveMSMax,
		"longest `interval_ms`":                                  IntervalMSMax,
		"wait for `at_least`, ms":                                AtLeastWaitMS,
		"nesting of a JSON message":                              jsonDepthMax,
		"nesting of a CBOR command":                              cborDepthMax,
		"fields of a CBOR map and of those around it":            cborFieldsMax,
	}
	got := map[string]int{}
	for _, row := range table(t, "Limits") {
		n, err := strconv.Atoi(strings.ReplaceAll(row[1], ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		got[row[0]] = n
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestErrorsMatchByCode(t *testing.T) {
	err := error(RetryLater(CodeOverloaded, 50, "full"))
	e, ok := err.(*Error)
	if !ok || !e.Retryable || e.RetryAfterMS != 50 || e.Error() != "overloaded: full" {
		t.Errorf("%+v", err)
	}
	if !e.Is(&Error{Code: CodeOverloaded}) || e.Is(&Error{Code: CodeUnavailable}) || e.Is(os.ErrNotExist) {
		t.Error("errors do not match by code alone")
	}
}
