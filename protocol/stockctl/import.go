package main

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func (a *app) importCommand() *cobra.Command {
	var inFlight int
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Set what is on hand from a CSV of sku,location,on_hand", Args: cobra.ExactArgs(1),
		Long: `Set what is on hand from a CSV of sku,location,on_hand. A header line may name the
columns in any order; a missing or empty location is "main".

Every line that could not be applied goes to FILE.rejects.csv with its number and the reason, and
the exit status is 1. Keys are made from the file's content and the line number: importing the same
file again, after an interruption for instance, applies each line once.`,
		Example: "  stockctl import stock.csv\n  stockctl import stock.csv --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.long(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.importFile(ctx, c, args[0], inFlight)
			})
		},
	}
	cmd.Flags().IntVar(&inFlight, "in-flight", 256, "lines under way at once")
	return cmd
}

// importLine is one line of the file: what to count, or why it can't be read.
type importLine struct {
	number   int
	record   []string
	sku      string
	location string
	onHand   int64
	err      error
}

type importSummary struct {
	Lines    int    `json:"lines"`
	Applied  int    `json:"applied"`
	Replayed int    `json:"replayed"` // of these, applied by an earlier import
	Rejected int    `json:"rejected"`
	Rejects  string `json:"rejects,omitzero"` // file of the rejected lines
}

func (a *app) importFile(ctx context.Context, c *client.Client, path string, inFlight int) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := readImport(content)
	im := &importer{client: c, prefix: importPrefix(content), progress: newProgress(a.errOut, "import", len(lines))}
	im.run(ctx, lines, max(1, inFlight))
	im.progress.end()
	sum := importSummary{Lines: len(lines), Applied: im.applied, Replayed: im.replayed, Rejected: len(im.rejects)}
	if sum.Rejects, err = writeRejects(path, im.rejects); err != nil {
		return fmt.Errorf("rejects: %w", err)
	}
	if err := a.printImport(sum); err != nil {
		return err
	}
	if sum.Rejected > 0 {
		return fmt.Errorf("%d of %d lines were rejected: see %s", sum.Rejected, sum.Lines, sum.Rejects)
	}
	return nil
}

func (a *app) printImport(s importSummary) error {
	if a.json {
		return printJSON(a.out, s)
	}
	_, err := fmt.Fprintf(a.out, "%d lines: %d applied (%d of them by an earlier import), %d rejected\n", s.Lines, s.Applied, s.Replayed, s.Rejected)
	return err
}

func importPrefix(content []byte) string {
	sum := sha256.Sum256(content)
	return "import:" + hex.EncodeToString(sum[:16]) + ":"
}

// importer applies lines; the mutex guards what it counts.
type importer struct {
	client   *client.Client
	prefix   string
	progress *progress

	mu                sync.Mutex
	applied, replayed int
	rejects           []importLine
}

func (im *importer) run(ctx context.Context, lines []importLine, inFlight int) {
	var g errgroup.Group
	g.SetLimit(inFlight)
	for _, l := range lines {
		g.Go(func() error {
			im.one(ctx, l)
			im.progress.add(1)
			return nil
		})
	}
	g.Wait()
	slices.SortFunc(im.rejects, func(a, b importLine) int { return a.number - b.number })
}

func (im *importer) one(ctx context.Context, l importLine) {
	replayed := false
	if l.err == nil {
		var r client.Reply
		r, l.err = im.client.Do(ctx, protocol.Command{Op: protocol.OpCount, SKU: l.sku, Location: l.location,
			OnHand: &l.onHand, Key: im.prefix + decimal(int64(l.number)), Reason: "import"})
		replayed = r.Replayed
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if l.err != nil {
		im.rejects = append(im.rejects, l)
		return
	}
	im.applied++
	if replayed {
		im.replayed++
	}
}

// readImport reads every line; those it can't make sense of carry an error.
func readImport(content []byte) []importLine {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(content), "\ufeff")))
	r.FieldsPerRecord = -1
	columns := map[string]int{"sku": 0, "location": 1, "on_hand": 2}
	seen := map[protocol.ItemKey]int{}
	var lines []importLine
	for first := true; ; first = false {
		record, err := r.Read()
		if err == io.EOF {
			return lines
		}
		if named := header(record); first && err == nil && named != nil {
			columns = named
			continue
		}
		l := readImportLine(record, columns, err)
		if err == nil {
			l.number, _ = r.FieldPos(0)
		}
		if l.err == nil {
			l.err = onlyOnce(seen, &l)
		}
		lines = append(lines, l)
	}
}

// header returns the column of each name where the record names them.
func header(record []string) map[string]int {
	columns := map[string]int{}
	for i, name := range record {
		columns[strings.ToLower(strings.TrimSpace(name))] = i
	}
	if _, ok := columns["sku"]; !ok {
		return nil
	}
	if _, ok := columns["on_hand"]; !ok {
		return nil
	}
	return columns
}

func readImportLine(record []string, columns map[string]int, err error) importLine {
	l := importLine{record: record, err: err}
	var bad *csv.ParseError
	if errors.As(err, &bad) {
		l.number, l.err = bad.StartLine, bad.Err
	}
	if l.err != nil {
		return l
	}
	field := func(name string) string {
		if i, ok := columns[name]; ok && i < len(record) {
			return record[i]
		}
		return ""
	}
	if len(record) <= columns["sku"] || len(record) <= columns["on_hand"] {
		l.err = fmt.Errorf("%d fields, want sku,location,on_hand", len(record))
		return l
	}
	l.sku, l.location = field("sku"), field("location")
	if l.location == "" {
		l.location = protocol.DefaultLocation
	}
	l.onHand, l.err = parseNumber("on_hand", strings.TrimSpace(field("on_hand")))
	return l
}

// onlyOnce refuses a second line for an item: which of the two is meant can't
// be known, and lines are applied side by side.
func onlyOnce(seen map[protocol.ItemKey]int, l *importLine) error {
	k := protocol.ItemKey{SKU: l.sku, Location: l.location}
	if n, ok := seen[k]; ok {
		return fmt.Errorf("the same item as in line %d", n)
	}
	seen[k] = l.number
	return nil
}

// writeRejects writes the rejected lines and returns the file's name; where
// there are none, the rejects of an earlier import are removed.
func writeRejects(path string, rejects []importLine) (string, error) {
	path += ".rejects.csv"
	if len(rejects) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		return "", nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := csv.NewWriter(f)
	w.Write([]string{"line", "reason", "fields"})
	for _, l := range rejects {
		w.Write(append([]string{decimal(int64(l.number)), rejectReason(l.err)}, l.record...))
	}
	w.Flush()
	if err := errors.Join(w.Error(), f.Close()); err != nil {
		return "", err
	}
	return path, nil
}

func rejectReason(err error) string {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return "not answered before the import ended; import the file again"
	}
	return err.Error()
}
