package protocol

import "slices"

// Check says whether a command may be carried out, nil or an error with CodeForbidden.
// The command has passed Command.Check. A reservation is only known by its id here, so
// a command on one gets the Scope that its lines must be within (Command.Within);
// whoever decides it refuses it otherwise, as if there were no such reservation.
func (a *Access) Check(c *Command) *Error {
	right := c.Op.Right()
	if right == "" || a != nil && a.full {
		return nil
	}
	region, otherwise := c.ActsIn(a.own())
	if !a.grantedIn(right, region) {
		return forbidden("%s is not granted in region %q", right, region)
	}
	if otherwise != "" && !a.grantedIn(right, otherwise) {
		return forbidden("%s is not granted in region %q", right, otherwise)
	}
	switch c.Op {
	case OpConfirm, OpRelease, OpExtend, OpReservation:
		if !a.wide(right, region) {
			c.Within = a.scope(right, region)
		}
		return nil
	case OpOutcome, OpUnsubscribe:
		return nil // an outcome is looked at when it is known: VisibleOutcome
	case OpGet, OpSubscribe:
		return a.checkSelectors(c)
	}
	return a.checkItems(c, right, region)
}

// own is the region that the access was made for.
func (a *Access) own() string {
	if a == nil {
		return ""
	}
	return a.region
}

// grantedIn reports whether a right reaches anything in a region.
func (a *Access) grantedIn(right Right, region string) bool {
	return a != nil && slices.ContainsFunc(a.grants[right], func(g grant) bool { return listed(g.Regions, region) })
}

// checkItems is for commands which name each item that they touch.
func (a *Access) checkItems(c *Command, right Right, region string) *Error {
	may := func(sku, location string) *Error {
		for i := range a.grants[right] {
			g := &a.grants[right][i]
			if listed(g.Regions, region) && g.has(sku, location) && (c.Op != OpReserve || listed(g.Users, c.User)) {
				return nil
			}
		}
		if c.Op == OpReserve && c.User != "" {
			return forbidden("%s of %q at %q for user %q is not granted", right, sku, location, c.User)
		}
		return forbidden("%s of %q at %q is not granted", right, sku, location)
	}
	switch c.Op {
	case OpReserve, OpSell:
		for i := range c.Lines {
			if err := may(c.Lines[i].SKU, c.Lines[i].Location); err != nil {
				return err
			}
		}
		return nil
	case OpMove:
		if err := may(c.SKU, c.From); err != nil {
			return err
		}
		return may(c.SKU, c.To)
	}
	return may(c.SKU, c.Location)
}

// checkSelectors is for what picks items. Each that is named must be seen, wide ones
// leave out what isn't.
func (a *Access) checkSelectors(c *Command) *Error {
	for _, user := range c.Users {
		if !a.SeesUser(user) {
			return forbidden("watching user %q is not granted", user)
		}
	}
	for _, location := range c.Locations {
		if !slices.ContainsFunc(a.view, func(g grant) bool { return g.at(location) }) {
			return forbidden("watching location %q is not granted", location)
		}
		for _, sku := range c.SKUs {
			if !a.Sees(sku, location) {
				return forbidden("watching %q at %q is not granted", sku, location)
			}
		}
	}
	if len(c.Locations) > 0 {
		return nil
	}
	for _, sku := range c.SKUs {
		if !slices.ContainsFunc(a.view, func(g grant) bool { return g.names(sku) }) {
			return forbidden("watching %q is not granted", sku)
		}
	}
	return nil
}

// VisibleReply is to be asked before a reply leaves the node: it takes out of it, or
// replaces it by an error, what the caller may not see.
func (a *Access) VisibleReply(call *Call) {
	if call.Err != nil || a != nil && a.full {
		return
	}
	switch call.Command.Op {
	case OpGet:
		call.Result.Items = a.Visible(call.Result.Items)
		if !a.SeesAll() {
			a.showGet(call)
		}
	case OpOutcome:
		if call.Result.Known && !a.coversOutcome(&call.Command, call.Result.Outcome) {
			call.Result = Result{}
			call.Err = forbidden("what key %q did is outside the grants", call.Command.Key)
		}
	}
}

// showGet makes what is left of a get's answer the one that there would be if nothing
// else existed: a SKU that exists only where the caller sees nothing reads as one that
// doesn't exist, and at_least is reached by what the caller sees or not at all.
func (a *Access) showGet(call *Call) {
	c, res := &call.Command, &call.Result
	if len(c.Locations) == 0 {
		res.Items = a.withUnknown(res.Items, c.SKUs)
	}
	want, err := ParseVector(c.AtLeast)
	if err != nil || len(want) == 0 {
		return
	}
	res.Behind = !slices.ContainsFunc(res.Items, func(it Item) bool {
		have, err := ParseVector(it.Version)
		return err == nil && have.AtLeast(want)
	})
}

// withUnknown puts zero items where SKUs have none. Items are in the order of skus, and
// so is the result: the place would tell which is which.
func (a *Access) withUnknown(items []Item, skus []string) []Item {
	out := make([]Item, 0, len(items))
	for _, sku := range skus {
		n := 0
		// A SKU that is named twice in a row has its locations twice.
		for last := (ItemKey{}); n < len(items) && items[n].SKU == sku && items[n].Key().Compare(last) > 0; n++ {
			last = items[n].Key()
		}
		out, items = append(out, items[:n]...), items[n:]
		if n == 0 && a.Sees(sku, DefaultLocation) {
			out = append(out, Item{SKU: sku, Location: DefaultLocation})
		}
	}
	return append(out, items...)
}

// coversOutcome reports whether all that a reply shows may be seen with the right to
// ask for outcomes, or with the one to watch.
func (a *Access) coversOutcome(c *Command, r *Result) bool {
	if a == nil || r == nil {
		return r == nil
	}
	region := r.Region
	if region == "" {
		region, _ = c.ActsIn(a.region)
	}
	if a.wide(RightReserve, region) {
		return true
	}
	scope := append(a.scope(RightReserve, region), a.scope(RightWatch, region)...)
	if r.Reservation != nil && !scope.Covers(r.Reservation.User, r.Reservation.Lines) {
		return false
	}
	for i := range r.Items {
		it := &r.Items[i]
		if !slices.ContainsFunc(scope, func(g Grant) bool { return g.allows(it.SKU, it.Location) }) {
			return false
		}
	}
	return true
}

func forbidden(format string, args ...any) *Error {
	return NewError(CodeForbidden, format, args...)
}
