package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/spf13/pflag"
)

const (
	optionFileBytesMax = 1 << 20

	// optionFileKeysMax bounds the lines with a key: far more than there are options,
	// and few enough that each mistake can be told.
	optionFileKeysMax = 1000
)

// setting is an option that a file gives.
type setting struct {
	name  string
	value string // as the flag takes it
	line  int
}

// readFile sets what the file has that --config names. The whole of it is checked, also
// what a flag or the environment stands above.
func (o Origins) readFile(f *pflag.FlagSet) error {
	flag := f.Lookup("config")
	if flag == nil || flag.Value.String() == "" {
		return nil
	}
	path := flag.Value.String()
	text, err := readOptionFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	kinds := make(map[string]string)
	f.VisitAll(func(flag *pflag.Flag) { kinds[flag.Name] = flag.Value.Type() })
	settings, err := parseOptions(path, text, kinds)
	errs := []error{err}
	for _, s := range settings {
		errs = append(errs, o.set(f, s.name, s.value, fmt.Sprintf("%s:%d", path, s.line)))
	}
	return errors.Join(errs...)
}

func readOptionFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, optionFileBytesMax+1))
	if err == nil && len(text) > optionFileBytesMax {
		err = fmt.Errorf("%s: more than %d bytes", path, optionFileBytesMax)
	}
	return text, err
}

// optionParser collects what one file gives, and everything that is wrong with it.
type optionParser struct {
	path  string
	kinds map[string]string // types of flags by name
	names []string          // of them
	lines map[string]int    // where an option was given
	found []setting
	errs  []error
}

// parseOptions reads a file of options. kinds are the types of the flags, by name, as
// pflag calls them. What can be used is returned beside the error.
func parseOptions(path string, text []byte, kinds map[string]string) ([]setting, error) {
	p := &optionParser{path: path, kinds: kinds, lines: make(map[string]int)}
	for name := range kinds {
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	p.parse(string(text))
	return p.found, errors.Join(p.errs...)
}

func (p *optionParser) bad(at *token.Token, format string, args ...any) {
	line := 1
	if at != nil && at.Position != nil {
		line = at.Position.Line
	}
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %w", p.path, line, fmt.Errorf(format, args...)))
}

func (p *optionParser) parse(text string) {
	tokens := lexer.Tokenize(text)
	if !p.plain(tokens) {
		return
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if said, ok := errors.AsType[yaml.Error](err); ok {
		p.bad(said.GetToken(), "no YAML: %s", said.GetMessage()) // without the lines it quotes
		return
	}
	if err != nil {
		p.bad(nil, "no YAML: %w", err)
		return
	}
	bodies := 0
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if bodies++; bodies > 1 {
			p.bad(doc.Body.GetToken(), "a second document: a file holds one")
			return
		}
		p.document(doc.Body)
	}
}

// plain refuses what a list of options has no use for, before the parser sees it: its
// time grows with the square of what is nested.
func (p *optionParser) plain(tokens token.Tokens) bool {
	depth, keys := 0, 0
	var before *token.Token
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.TagType, token.DirectiveType, token.MergeKeyType, token.MappingKeyType, token.LiteralType, token.FoldedType:
			p.bad(t, "%q is not taken here: an option is plain, as max-connections: 1000", t.Value)
			return false
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.MappingValueType:
			keys++
		case token.SequenceEntryType:
			if before != nil && before.Type == t.Type {
				depth = 2
			}
		}
		if depth > 1 || keys > optionFileKeysMax {
			p.bad(t, "an option is a value or a list of values, nothing deeper, and there are not %d of them", optionFileKeysMax)
			return false
		}
		before = t
	}
	return true
}

func (p *optionParser) document(body ast.Node) {
	switch n := body.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			p.option(v)
		}
	case *ast.MappingValueNode:
		p.option(n)
	default:
		p.bad(body.GetToken(), "want options, as max-connections: 1000")
	}
}

func (p *optionParser) option(n *ast.MappingValueNode) {
	at := n.Key.GetToken()
	name := at.Value
	kind, known := p.kinds[name]
	switch first, twice := p.lines[name]; {
	case name == "config":
		p.bad(at, "config names this file, and can't stand in it")
		return
	case !known:
		p.bad(at, "%.100q is no option%s", name, nearest(name, p.names))
		return
	case twice:
		p.bad(at, "%s stands in line %d already", name, first)
		return
	}
	p.lines[name] = at.Position.Line
	value, err := optionValue(n.Value, kind)
	if err != nil {
		p.bad(at, "%s: %w", name, err)
		return
	}
	p.found = append(p.found, setting{name, value, at.Position.Line})
}

// optionValue is a value as a flag of this type takes it. YAML's types count: what wants
// text takes no number, so that nothing is read as something else than was written.
func optionValue(n ast.Node, kind string) (string, error) {
	if _, null := n.(*ast.NullNode); null {
		return "", errors.New(`has no value: write "" for an empty one, or leave the line out`)
	}
	switch kind {
	case "bool":
		if b, ok := n.(*ast.BoolNode); ok {
			return strconv.FormatBool(b.Value), nil
		}
		return "", errors.New("want true or false")
	case "int":
		return wholeNumber(n)
	case "float64":
		return fraction(n)
	case "duration":
		return duration(n)
	case "stringSlice":
		return list(n)
	}
	return text(n)
}

func wholeNumber(n ast.Node) (string, error) {
	if i, ok := n.(*ast.IntegerNode); ok {
		// As it is written: YAML takes 010 for eight, or for ten.
		raw := i.GetToken().Value
		if v, err := strconv.Atoi(raw); err == nil && strconv.Itoa(v) == raw {
			return raw, nil
		}
	}
	return "", fmt.Errorf("want a whole number, as 1000, not %.100s", n)
}

func fraction(n ast.Node) (string, error) {
	switch n.(type) {
	case *ast.FloatNode, *ast.IntegerNode:
		raw := n.GetToken().Value
		if _, err := strconv.ParseFloat(raw, 64); err == nil {
			return raw, nil
		}
	}
	return "", fmt.Errorf("want a number, as 0.01, not %.100s", n)
}

func duration(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.StringNode:
		if _, err := time.ParseDuration(v.Value); err == nil {
			return v.Value, nil
		}
	case *ast.IntegerNode:
		if v.GetToken().Value == "0" {
			return "0s", nil
		}
	}
	return "", fmt.Errorf("want a time with its unit, as 150ms, 30s or 24h, not %.100s", n)
}

func text(n ast.Node) (string, error) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		return "", fmt.Errorf("want text, not %.100s: put quotes around it", n)
	}
	for _, r := range s.Value {
		if r < ' ' || r == 0x7f {
			return "", errors.New("want one line of text")
		}
	}
	return s.Value, nil
}

// list takes a YAML list, and what the flag takes: a string with commas.
func list(n ast.Node) (string, error) {
	values, ok := n.(*ast.SequenceNode)
	if !ok {
		return text(n)
	}
	items := make([]string, len(values.Values))
	for i, v := range values.Values {
		item, err := text(v)
		if err != nil {
			return "", fmt.Errorf("item %d: %w", i+1, err)
		}
		if item == "" {
			return "", fmt.Errorf("item %d is empty", i+1)
		}
		items[i] = item
	}
	return joined(items)
}
