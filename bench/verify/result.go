package verify

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// Result is what was looked at, and what was wrong.
type Result struct {
	Nodes       []Node       `json:"nodes"`
	Checks      []CheckCount `json:"checks"`
	Items       int          `json:"items"` // that any node has shown
	FaultsTotal int64        `json:"faults_total"`
	Faults      []Fault      `json:"faults"` // the first of them
	TookMS      int64        `json:"took_ms"`
}

// Node is what one node shows. The sums are over all its items.
type Node struct {
	Name      string `json:"name"`
	Region    string `json:"region"`
	Endpoint  string `json:"endpoint"` // without its token
	Items     int64  `json:"items"`
	OnHand    int64  `json:"on_hand"`
	Reserved  int64  `json:"reserved"`
	Available int64  `json:"available"`
	ReadMS    int64  `json:"read_ms"` // until it had shown all
	LagMS     int64  `json:"lag_ms"`  // age of its oldest picture of a region
}

// CheckCount says how much a check has looked at.
type CheckCount struct {
	Name   string `json:"name"`
	About  string `json:"about"`
	Looked int64  `json:"looked_at"`
	Faults int64  `json:"faults"`
	Note   string `json:"note,omitzero"`
}

// finish adds up. Nobody changes anything any more.
func (v *verifier) finish(took time.Duration) Result {
	r, f := v.result, v.found
	r.TookMS = took.Milliseconds()
	r.Faults = append([]Fault{}, f.faults...)
	for c, d := range described {
		r.Checks = append(r.Checks, CheckCount{d.name, d.about, f.looked[c], f.wrong[c], f.notes[c]})
		r.FaultsTotal += f.wrong[c]
	}
	if v.book == nil {
		return r
	}
	r.Items = v.book.names.len()
	for i, p := range v.book.pictures {
		n := &r.Nodes[i]
		n.ReadMS = v.nodes[i].filling.Milliseconds()
		for item := range uint32(r.Items) {
			if p.relation(item, nil) == shownNot {
				continue
			}
			row := p.row(item)
			n.Items++
			n.OnHand += row.onHand
			n.Reserved += row.reserved
			n.Available += row.available
		}
	}
	return r
}

// Looked is how much a check of this name has looked at.
func (r *Result) Looked(name string) int64 {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Looked
		}
	}
	return 0
}

// Err says that something is wrong; nil where all is well.
func (r *Result) Err() error {
	if r.FaultsTotal == 0 {
		return nil
	}
	return fmt.Errorf("%d faults, the first: %s", r.FaultsTotal, r.Faults[0])
}

// Print writes the result for people.
func (r *Result) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "node\tregion\titems\ton hand\treserved\tavailable\tread in ms\toldest picture, ms\t\n")
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t\n", n.Name, n.Region, thousands(n.Items), thousands(n.OnHand), thousands(n.Reserved), thousands(n.Available), n.ReadMS, n.LagMS)
	}
	w.Flush()
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "check\tlooked at\tfaults\tabout\n")
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", c.Name, thousands(c.Looked), c.Faults, c.About)
		if c.Note != "" {
			fmt.Fprintf(w, "\t\t\t(%s)\n", c.Note)
		}
	}
	w.Flush()
	fmt.Fprintln(out)
	for _, f := range r.Faults {
		fmt.Fprintf(out, "FAULT %s\n", f)
	}
	if more := r.FaultsTotal - int64(len(r.Faults)); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	fmt.Fprintf(out, "%s items on %d nodes in %v: %d faults\n", thousands(int64(r.Items)), len(r.Nodes), time.Duration(r.TookMS)*time.Millisecond, r.FaultsTotal)
}

// thousands sets them apart.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
