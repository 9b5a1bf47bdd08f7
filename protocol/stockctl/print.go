package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/stockmesh/stockmesh/protocol"
)

// printJSON writes each value as one line.
func printJSON[T any](w io.Writer, values ...T) error {
	for _, v := range values {
		if _, err := w.Write(append(protocol.AppendJSON(nil, v), '\n')); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printItems(items ...protocol.Item) error {
	if a.json {
		return printJSON(a.out, items...)
	}
	return itemTable(a.out, items)
}

func itemTable(w io.Writer, items []protocol.Item) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SKU\tLOCATION\tAVAILABLE\tON HAND\tRESERVED\tVERSION\tUPDATED")
	for i := range items {
		it := &items[i]
		low := ""
		if it.Low {
			low = " low"
		}
		fmt.Fprintf(t, "%s\t%s\t%d%s\t%d\t%d\t%s\t%s\n", it.SKU, it.Location, it.Available, low, it.OnHand, it.Reserved, it.Version, timeText(it.UpdatedAt))
	}
	return t.Flush()
}

func timeText(t protocol.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Std().Local().Format("2006-01-02 15:04:05")
}

func (a *app) printReservation(r protocol.Reservation) error {
	if a.json {
		return printJSON(a.out, r)
	}
	fmt.Fprintf(a.out, "%s  %s", r.ID, r.State)
	if r.State == protocol.Held {
		fmt.Fprintf(a.out, " until %s", timeText(r.ExpiresAt))
	}
	fmt.Fprintln(a.out)
	for _, l := range r.Lines {
		fmt.Fprintf(a.out, "  %d of %s at %s\n", l.Quantity, l.SKU, l.Location)
	}
	return nil
}

func (a *app) printMovements(movements []protocol.Movement) error {
	if a.json {
		return printJSON(a.out, movements...)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "AT\tTYPE\tON HAND\tRESERVED\tREFERENCE\tREASON\tBY\tKEY\tSEQUENCE")
	for i := range movements {
		m := &movements[i]
		fmt.Fprintf(t, "%s\t%s\t%d (%+d)\t%d (%+d)\t%s\t%s\t%s\t%s\t%s\n", timeText(m.At), m.Type,
			m.OnHand, m.OnHandDelta, m.Reserved, m.ReservedDelta, m.Reference, m.Reason, whose(m), m.Key, m.Sequence)
	}
	return t.Flush()
}

// whose says who asked for a movement and from where, as far as that is known.
func whose(m *protocol.Movement) string {
	if m.Subject != "" && m.Address != "" {
		return m.Subject + "@" + m.Address
	}
	return m.Subject + m.Address
}
