package edge

import (
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// index finds those who want to hear of an item. A look-up costs one by SKU, one by
// location and one per length of prefix in use, however many others subscribe to
// something else.
type index struct {
	skus     map[string][]*entry
	prefixes map[string][]*entry
	places   map[string][]*entry // every SKU at a location
	wide     []*entry            // every SKU everywhere
	users    map[string][]*entry

	lengths [protocol.NameBytesMax + 1]int // how many prefixes are so long
	used    []int                          // the lengths in use, ascending
}

func newIndex() index {
	return index{
		skus: make(map[string][]*entry), prefixes: make(map[string][]*entry),
		places: make(map[string][]*entry), users: make(map[string][]*entry),
	}
}

// nobody reports whether there is nobody to be found by any item.
func (x *index) nobody() bool {
	return len(x.skus)+len(x.prefixes)+len(x.places)+len(x.wide) == 0
}

// entry is one selector of one subscriber, or a part of it: a wide one may stand at
// several spots.
type entry struct {
	conn      *conn
	spot      spot
	place     int      // in the spot's list
	locations []string // of SKUs and prefixes; nil: all
	interval  int64    // ms
	next      *entry   // the selector's next part
}

// spot is where an entry stands.
type spot struct {
	kind  byte
	value string
}

// entryID is what a selector says, by which it is found again.
type entryID struct {
	kind      byte
	value     string
	locations string
}

// Kinds of spots and selectors.
const (
	kindSKU    = 's'
	kindPrefix = 'p'
	kindWide   = 'w'
	kindUser   = 'u'
	kindPlace  = 'l' // of spots only
)

// weight is what a selector counts: one that names locations may stand at each.
func (id entryID) weight() int {
	if id.kind != kindWide || id.locations == "" {
		return 1
	}
	return 1 + strings.Count(id.locations, locationEnd)
}

// locationEnd parts the locations of an entryID. No name holds it.
const locationEnd = "\x00"

// entries lists what a subscribe or unsubscribe names.
func entries(cmd *protocol.Command) []entryID {
	locations := slices.Compact(slices.Sorted(slices.Values(cmd.Locations)))
	joined := strings.Join(locations, locationEnd)
	var ids []entryID
	add := func(kind byte, values []string, locations string) {
		for _, v := range values {
			ids = append(ids, entryID{kind, v, locations})
		}
	}
	add(kindSKU, cmd.SKUs, joined)
	add(kindPrefix, cmd.Prefixes, joined)
	if wide(cmd) {
		ids = append(ids, entryID{kindWide, "", joined})
	}
	add(kindUser, cmd.Users, "")
	return ids
}

// wide reports whether a command names every SKU. Users alone name none.
func wide(cmd *protocol.Command) bool {
	return cmd.All || len(cmd.SKUs)+len(cmd.Prefixes) == 0 && len(cmd.Locations) > 0
}

// enter puts a selector where changes will find it, for a subscriber that sees what
// view lets it see; nil: everything.
func (x *index) enter(c *conn, id entryID, locations []string, view *protocol.Access, interval int64) *entry {
	if id.kind != kindWide {
		e := &entry{conn: c, spot: spot{id.kind, id.value}, interval: interval}
		if id.kind != kindUser {
			e.locations = locations
		}
		x.insert(e)
		return e
	}
	var first *entry
	for _, s := range id.spots(view) {
		first = &entry{conn: c, spot: s, interval: interval, next: first}
		x.insert(first)
	}
	return first
}

// spots are where a wide selector stands: with as little as possible that its
// subscriber may not see. What is left of that is found out for each item.
func (id entryID) spots(view *protocol.Access) []spot {
	sel := protocol.Selector{All: true}
	if id.locations != "" {
		sel.Locations = strings.Split(id.locations, locationEnd)
	}
	if view != nil {
		var ok bool
		if sel, ok = view.Narrow(sel); !ok {
			return nowhere()
		}
	}
	var list []spot
	add := func(kind byte, values []string) {
		for _, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
			if len(v) <= protocol.NameBytesMax { // no name that a grant may hold is longer
				list = append(list, spot{kind, v})
			}
		}
	}
	switch {
	case len(sel.Locations) > 0:
		add(kindPlace, sel.Locations)
	case !sel.Wide():
		add(kindSKU, sel.SKUs)
		add(kindPrefix, sel.Prefixes)
	default:
		list = []spot{{kindWide, ""}}
	}
	if len(list) == 0 {
		return nowhere()
	}
	return list
}

// nowhere is a spot that no item is at, for a selector that finds nothing as long as its
// subscriber has the grants it has.
func nowhere() []spot { return []spot{{kindPlace, ""}} }

// quit takes a selector out, all its parts.
func (x *index) quit(e *entry) {
	for ; e != nil; e = e.next {
		x.remove(e)
	}
}

// often sets a selector's interval.
func (e *entry) often(interval int64) {
	for ; e != nil; e = e.next {
		e.interval = interval
	}
}

// table is where the lists of a kind of spots are; nil: kindWide, which has one list.
func (x *index) table(kind byte) map[string][]*entry {
	switch kind {
	case kindSKU:
		return x.skus
	case kindPrefix:
		return x.prefixes
	case kindPlace:
		return x.places
	case kindUser:
		return x.users
	}
	return nil
}

func (x *index) list(s spot) []*entry {
	if s.kind == kindWide {
		return x.wide
	}
	return x.table(s.kind)[s.value]
}

func (x *index) setList(s spot, list []*entry) {
	switch {
	case s.kind == kindWide:
		x.wide = list
	case len(list) == 0:
		delete(x.table(s.kind), s.value)
	default:
		x.table(s.kind)[s.value] = list
	}
}

func (x *index) insert(e *entry) {
	list := x.list(e.spot)
	if e.spot.kind == kindPrefix && len(list) == 0 {
		x.countLength(len(e.spot.value), 1)
	}
	e.place = len(list)
	x.setList(e.spot, append(list, e))
}

// remove puts the list's last entry in the place of the one that goes.
func (x *index) remove(e *entry) {
	list := x.list(e.spot)
	last := len(list) - 1
	list[e.place] = list[last]
	list[e.place].place = e.place
	list[last] = nil
	x.setList(e.spot, list[:last])
	if e.spot.kind == kindPrefix && last == 0 {
		x.countLength(len(e.spot.value), -1)
	}
}

// countLength notes that there is one more or one less prefix of a length.
func (x *index) countLength(n, more int) {
	x.lengths[n] += more
	i, used := slices.BinarySearch(x.used, n)
	switch {
	case used && x.lengths[n] == 0:
		x.used = slices.Delete(x.used, i, i+1)
	case !used && x.lengths[n] > 0:
		x.used = slices.Insert(x.used, i, n)
	}
}
