package protocol

import (
	"slices"
	"strings"
	"time"
)

// Right is one of the things a grant lets its holder do.
type Right string

// The rights, with the commands each stands for.
const (
	RightWatch     Right = "watch"     // subscribe, unsubscribe, get, reservation, streams and pages
	RightHistory   Right = "history"   // history
	RightAdjust    Right = "adjust"    // adjust
	RightCount     Right = "count"     // count
	RightReserve   Right = "reserve"   // reserve, confirm, release, extend, outcome
	RightSell      Right = "sell"      // sell
	RightMove      Right = "move"      // move
	RightConfigure Right = "configure" // configure
	RightAdmin     Right = "admin"     // the mesh's view and whatever operates a node
)

// Rights lists all rights.
func Rights() []Right {
	return []Right{RightWatch, RightHistory, RightAdjust, RightCount, RightReserve, RightSell, RightMove, RightConfigure, RightAdmin}
}

// Right returns what a command needs, "" for auth and ping.
func (op Op) Right() Right {
	switch op {
	case OpSubscribe, OpUnsubscribe, OpGet, OpReservation:
		return RightWatch
	case OpReserve, OpConfirm, OpRelease, OpExtend, OpOutcome:
		return RightReserve
	case OpAuth, OpPing:
		return ""
	}
	return Right(op) // the others are named as their commands, and no right is named as a node's own commands
}

// Grant is one element of a token's claim "grants". A list that is nil stands for
// all, an empty one for none.
type Grant struct {
	Do        []Right  `json:"do"`
	SKUs      []string `json:"skus,omitzero"` // one that ends with * stands for all that begin so
	Locations []string `json:"locations,omitzero"`
	Regions   []string `json:"regions,omitzero"`
	Users     []string `json:"users,omitzero"` // whose reservations
}

// Scope is what a command may touch: each item, and the user, must be within one of
// its grants. A nil Scope is no limit.
type Scope []Grant

// Covers reports whether a reservation is within the scope.
func (s Scope) Covers(user string, lines []Line) bool {
	if s == nil {
		return true
	}
	for i := range lines {
		if !slices.ContainsFunc(s, func(g Grant) bool {
			return g.allows(lines[i].SKU, lines[i].Location) && listed(g.Users, user)
		}) {
			return false
		}
	}
	return len(lines) > 0
}

func (g *Grant) allows(sku, location string) bool {
	return listed(g.Locations, location) && (g.SKUs == nil || slices.ContainsFunc(g.SKUs, func(p string) bool { return matches(p, sku) }))
}

func listed(list []string, v string) bool { return list == nil || slices.Contains(list, v) }

// matches compares a SKU with a pattern.
func matches(pattern, sku string) bool {
	if begin, wide := strings.CutSuffix(pattern, "*"); wide {
		return strings.HasPrefix(sku, begin)
	}
	return pattern == sku
}

// Access is what a caller may do at the nodes of one region. A nil Access, as the one
// made of no grants, may do nothing. It is not changed once made.
type Access struct {
	region string
	full   bool
	given  []Grant
	grants map[Right][]grant
	view   []grant // of the right to watch, in this region
}

// grant is a Grant made ready to be asked often.
type grant struct {
	Grant
	skus      map[string]struct{} // exact ones, where there are many
	prefixes  []string
	locations map[string]struct{} // where there are many
}

// namesMany is how many names are rather looked up than compared one by one.
const namesMany = 8

func newGrant(g Grant) grant {
	ready := grant{Grant: g}
	if len(g.Locations) > namesMany {
		ready.locations = make(map[string]struct{}, len(g.Locations))
		for _, l := range g.Locations {
			ready.locations[l] = struct{}{}
		}
	}
	if len(g.SKUs) <= namesMany {
		return ready
	}
	ready.skus = make(map[string]struct{}, len(g.SKUs))
	for _, p := range g.SKUs {
		if begin, wide := strings.CutSuffix(p, "*"); wide {
			ready.prefixes = append(ready.prefixes, begin)
		} else {
			ready.skus[p] = struct{}{}
		}
	}
	return ready
}

func (g *grant) names(sku string) bool {
	if g.skus == nil {
		return g.SKUs == nil || slices.ContainsFunc(g.SKUs, func(p string) bool { return matches(p, sku) })
	}
	if _, ok := g.skus[sku]; ok {
		return true
	}
	return slices.ContainsFunc(g.prefixes, func(p string) bool { return strings.HasPrefix(sku, p) })
}

func (g *grant) at(location string) bool {
	if g.locations == nil {
		return listed(g.Grant.Locations, location)
	}
	_, ok := g.locations[location]
	return ok
}

func (g *grant) has(sku, location string) bool { return g.at(location) && g.names(sku) }

// NewAccess returns what grants allow at nodes of a region. Rights it doesn't know are
// left out: a later version's grant no more here.
func NewAccess(region string, grants []Grant) *Access {
	a := &Access{region: region, given: grants, grants: make(map[Right][]grant)}
	for _, g := range grants {
		ready := newGrant(g)
		for _, right := range Rights() {
			if slices.Contains(g.Do, right) {
				a.grants[right] = append(a.grants[right], ready)
			}
		}
	}
	for _, g := range a.grants[RightWatch] {
		if listed(g.Regions, region) {
			a.view = append(a.view, g)
		}
	}
	return a
}

// FullAccess may do everything: what everybody has where a node has no keys to check
// tokens with.
func FullAccess() *Access {
	a := NewAccess("", []Grant{{Do: Rights()}})
	a.full = true
	return a
}

// Same reports whether two were made of the same grants, in the same order.
func (a *Access) Same(b *Access) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.region == b.region && a.full == b.full && slices.EqualFunc(a.given, b.given, func(x, y Grant) bool {
		return slices.Equal(x.Do, y.Do) && sameList(x.SKUs, y.SKUs) && sameList(x.Locations, y.Locations) &&
			sameList(x.Regions, y.Regions) && sameList(x.Users, y.Users)
	})
}

func sameList(a, b []string) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }

// May reports whether the right is granted in this region for anything at all. Admin is
// not granted for some items only: it knows no items.
func (a *Access) May(right Right) bool {
	if right == RightAdmin {
		return a != nil && a.wide(right, a.region)
	}
	return a.grantedIn(right, a.own())
}

// SeesAll reports whether every item may be watched.
func (a *Access) SeesAll() bool {
	return a != nil && slices.ContainsFunc(a.view, func(g grant) bool { return g.SKUs == nil && g.Locations == nil })
}

// Sees reports whether an item may be watched.
func (a *Access) Sees(sku, location string) bool {
	if a == nil {
		return false
	}
	for i := range a.view {
		if a.view[i].has(sku, location) {
			return true
		}
	}
	return false
}

// SeesUser reports whether a user's reservations may be watched.
func (a *Access) SeesUser(user string) bool {
	return a != nil && slices.ContainsFunc(a.view, func(g grant) bool { return listed(g.Users, user) })
}

// SeesReservation reports whether all of a reservation may be watched.
func (a *Access) SeesReservation(r *Reservation) bool {
	return a != nil && (a.full || a.scope(RightWatch, a.region).Covers(r.User, r.Lines))
}

// Visible leaves of items those that may be watched, in place.
func (a *Access) Visible(items []Item) []Item {
	if a.SeesAll() {
		return items
	}
	return slices.DeleteFunc(items, func(it Item) bool { return !a.Sees(it.SKU, it.Location) })
}

// Narrow returns a selector for scanning what s picks: it leaves out what can't be
// seen as far as one selector can say that, and never anything else. ok is false where
// nothing can be seen.
func (a *Access) Narrow(s Selector) (narrow Selector, ok bool) {
	if a == nil || len(a.view) == 0 {
		return s, false
	}
	if a.SeesAll() {
		return s, true
	}
	if len(s.Locations) == 0 {
		if s.Locations = a.viewLocations(); s.Locations != nil && len(s.Locations) == 0 {
			return s, false
		}
	}
	skus, prefixes, all := a.viewSKUs()
	switch {
	case all:
		return s, true
	case s.Wide():
		s.SKUs, s.Prefixes, s.All = skus, prefixes, false
	default:
		s.SKUs, s.Prefixes = cut(s, skus, prefixes)
	}
	return s, len(s.SKUs)+len(s.Prefixes) > 0
}

// cut leaves of the prefixes of s what may be watched. SKUs that are named stay: they
// cost nothing.
func cut(s Selector, skus, prefixes []string) (leftSKUs, leftPrefixes []string) {
	leftSKUs = slices.Clone(s.SKUs)
	for _, p := range s.Prefixes {
		for _, sku := range skus {
			if strings.HasPrefix(sku, p) {
				leftSKUs = append(leftSKUs, sku)
			}
		}
		for _, v := range prefixes {
			switch {
			case strings.HasPrefix(v, p):
				leftPrefixes = append(leftPrefixes, v)
			case strings.HasPrefix(p, v):
				leftPrefixes = append(leftPrefixes, p)
			}
		}
	}
	return leftSKUs, leftPrefixes
}

// viewLocations are all that may be watched, nil for every one.
func (a *Access) viewLocations() []string {
	all := []string{}
	for _, g := range a.view {
		if g.Locations == nil {
			return nil
		}
		all = append(all, g.Locations...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *Access) viewSKUs() (skus, prefixes []string, all bool) {
	for _, g := range a.view {
		if g.SKUs == nil {
			return nil, nil, true
		}
		for _, p := range g.SKUs {
			if begin, wide := strings.CutSuffix(p, "*"); wide {
				prefixes = append(prefixes, begin)
			} else {
				skus = append(skus, p)
			}
		}
	}
	return skus, prefixes, false
}

// scope is what a right reaches in a region.
func (a *Access) scope(right Right, region string) Scope {
	s := Scope{}
	for _, g := range a.grants[right] {
		if listed(g.Regions, region) {
			s = append(s, g.Grant)
		}
	}
	return s
}

// wide reports whether a right reaches everything in a region.
func (a *Access) wide(right Right, region string) bool {
	return slices.ContainsFunc(a.grants[right], func(g grant) bool {
		return listed(g.Regions, region) && g.SKUs == nil && g.Locations == nil && g.Users == nil
	})
}

// Caller is who sends commands.
type Caller struct {
	Subject   string
	TokenID   string    // "" where the token has none
	IssuedAt  time.Time // zero: not said
	ExpiresAt time.Time // zero: never
	Access    *Access
}

// Anybody is the caller where a node has no keys to check tokens with.
func Anybody() *Caller { return &Caller{Access: FullAccess()} }
