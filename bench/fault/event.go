package fault

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Cluster is how many regions there are and how many nodes each of them has.
type Cluster struct{ Regions, Each int }

// minority is how many nodes of a region may be down without it standing still. A
// region of one has nobody else: there, the node stands for the region.
func (c Cluster) minority() int { return max((c.Each-1)/2, 1) }

// Event is one fault. Which of the numbers count is told by the kind.
type Event struct {
	Kind   Kind
	At     time.Duration // since the plan began
	For    time.Duration // until it is undone
	Region int           // of a link: where bytes don't leave from, if it is oneway
	Node   int           // of the region
	Peer   int           // the region at the link's other end
	By     time.Duration // of a clock
}

// End is when the fault is undone.
func (e Event) End() time.Duration { return e.At + e.For }

// AtNode reports whether the fault hits one node of a region.
func (e Event) AtNode() bool { return e.Kind.place() == atNode }

// AtLinks reports whether the fault hits what leads from region to region.
func (e Event) AtLinks() bool { return e.Kind.place() == atBorder || e.Kind.place() == atLink }

// String is the line of a plan: time, length, kind and place, as in
//
//	12.345s for 2s kill 0.2
//	15s for 4s region 1
//	20s for 3.5s oneway 0>2
//	31s for 9s clock 1.0 by -7m0s
//
// Regions and nodes count from 0.
func (e Event) String() string {
	s := fmt.Sprintf("%v for %v %s %s", e.At, e.For, e.Kind, e.where())
	if e.Kind == Clock {
		s += " by " + e.By.String()
	}
	return s
}

func (e Event) where() string {
	switch e.Kind.place() {
	case atRegion, atBorder:
		return strconv.Itoa(e.Region)
	case atLink:
		return fmt.Sprintf("%d>%d", e.Region, e.Peer)
	}
	return fmt.Sprintf("%d.%d", e.Region, e.Node)
}

// ParseEvent reads what String writes.
func ParseEvent(line string) (Event, error) {
	e, err := parseEvent(strings.Fields(line))
	if err != nil {
		return Event{}, fmt.Errorf("%q: %w", line, err)
	}
	return e, nil
}

func parseEvent(words []string) (e Event, err error) {
	if len(words) < 5 || words[1] != "for" {
		return e, fmt.Errorf("want TIME for LENGTH KIND PLACE, such as %q", Event{Kind: Kill, At: 3 * time.Second, For: time.Second})
	}
	kinds, err := ParseKinds(words[3:4])
	if err != nil {
		return e, err
	}
	e.Kind = kinds[0]
	if e.At, err = parseLength(words[0]); err != nil {
		return e, err
	}
	if e.For, err = parseLength(words[2]); err != nil {
		return e, err
	}
	if err := e.parseWhere(words[4]); err != nil {
		return e, err
	}
	rest := words[5:]
	if e.Kind == Clock {
		if len(rest) != 2 || rest[0] != "by" {
			return e, fmt.Errorf("want by DURATION at the end")
		}
		e.By, err = time.ParseDuration(rest[1])
		return e, err
	}
	if len(rest) > 0 {
		return e, fmt.Errorf("%q is too much", rest[0])
	}
	return e, nil
}

func parseLength(word string) (time.Duration, error) {
	d, err := time.ParseDuration(word)
	if err == nil && d < 0 {
		err = fmt.Errorf("%v is no time", d)
	}
	return d, err
}

func (e *Event) parseWhere(word string) (err error) {
	first, second, found := word, "", false
	switch e.Kind.place() {
	case atNode:
		first, second, found = strings.Cut(word, ".")
	case atLink:
		first, second, found = strings.Cut(word, ">")
	default:
		found = true
	}
	if !found {
		return fmt.Errorf("%s does not happen at %q", e.Kind, word)
	}
	if e.Region, err = parseNumber(first); err != nil {
		return err
	}
	switch e.Kind.place() {
	case atNode:
		e.Node, err = parseNumber(second)
	case atLink:
		e.Peer, err = parseNumber(second)
	}
	return err
}

func parseNumber(word string) (int, error) {
	n, err := strconv.Atoi(word)
	if err == nil && n < 0 {
		err = fmt.Errorf("%d is no number of a region or node", n)
	}
	return n, err
}
