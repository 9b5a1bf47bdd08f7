package protocol

import "unicode/utf8"

// Check fills in defaults and says what is wrong with the command, nil if
// nothing. It does not know about stock, permissions or regions.
func (c *Command) Check() *Error {
	if c.Op.IsWrite() {
		if err := c.checkWrite(); err != nil {
			return err
		}
	}
	check, ok := checks[c.Op]
	if !ok {
		if c.Op == "" {
			return BadRequest("op is missing")
		}
		return BadRequest("unknown op %.40q", string(c.Op))
	}
	return check(c)
}

var checks = map[Op]func(*Command) *Error{
	OpAuth:        (*Command).checkAuth,
	OpSubscribe:   (*Command).checkSubscribe,
	OpUnsubscribe: (*Command).checkSelectors,
	OpGet:         (*Command).checkGet,
	OpAdjust:      (*Command).checkAdjust,
	OpCount:       (*Command).checkCount,
	OpReserve:     (*Command).checkReserve,
	OpConfirm:     (*Command).checkReservation,
	OpRelease:     (*Command).checkReservation,
	OpReservation: (*Command).checkReservation,
	OpExtend:      (*Command).checkExtend,
	OpSell:        (*Command).checkLines,
	OpMove:        (*Command).checkMove,
	OpConfigure:   (*Command).checkConfigure,
	OpHistory:     (*Command).checkHistory,
	OpOutcome:     (*Command).checkOutcome,
	OpPing:        func(*Command) *Error { return nil },
}

// Ops lists every command of the contract.
func Ops() []Op {
	ops := make([]Op, 0, len(checks))
	for op := range checks {
		ops = append(ops, op)
	}
	return ops
}

func (c *Command) checkWrite() *Error {
	if c.Key == "" {
		return NewError(CodeMissingKey, "%s needs an idempotency key: a key of your own making, the same for every retry", c.Op)
	}
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if c.Home != "" {
		if err := CheckRegion("home", c.Home); err != nil {
			return err
		}
	}
	if err := checkText("reason", c.Reason); err != nil {
		return err
	}
	return checkText("reference", c.Reference)
}

func checkKey(key string) *Error {
	if key == "" || len(key) > NameBytesMax || !utf8.ValidString(key) {
		return BadRequest("key must be 1..%d bytes of valid UTF-8", NameBytesMax)
	}
	return nil
}

func (c *Command) checkItem() *Error {
	if c.Location == "" {
		c.Location = DefaultLocation
	}
	if err := CheckName("sku", c.SKU); err != nil {
		return err
	}
	return CheckName("location", c.Location)
}

func (c *Command) checkIfVersion() *Error {
	if c.IfVersion == nil {
		return nil
	}
	if _, err := ParseVector(*c.IfVersion); err != nil {
		return BadRequest("if_version: %v", err)
	}
	return nil
}

func (c *Command) checkAdjust() *Error {
	if err := c.checkItem(); err != nil {
		return err
	}
	if c.Delta == 0 || c.Delta > QuantityMax || c.Delta < -QuantityMax {
		return BadRequest("delta must be a non-zero integer within +-(2^53-1)")
	}
	return c.checkIfVersion()
}

func (c *Command) checkCount() *Error {
	if err := c.checkItem(); err != nil {
		return err
	}
	if c.OnHand == nil || *c.OnHand < 0 || *c.OnHand > QuantityMax {
		return BadRequest("on_hand must be an integer 0..2^53-1")
	}
	return c.checkIfVersion()
}

func (c *Command) checkLines() *Error {
	if len(c.Lines) == 0 {
		return BadRequest("lines is missing or empty")
	}
	if len(c.Lines) > LinesMax {
		return NewError(CodeTooLarge, "%d lines, the limit is %d", len(c.Lines), LinesMax)
	}
	for i := range c.Lines {
		l := &c.Lines[i]
		if l.Location == "" {
			l.Location = DefaultLocation
		}
		if err := CheckName("lines: sku", l.SKU); err != nil {
			return err
		}
		if err := CheckName("lines: location", l.Location); err != nil {
			return err
		}
		if err := checkQuantity("lines: quantity", l.Quantity); err != nil {
			return err
		}
	}
	return nil
}

func checkQuantity(field string, n int64) *Error {
	if n < 1 || n > QuantityMax {
		return BadRequest("%s must be an integer 1..2^53-1", field)
	}
	return nil
}

func (c *Command) checkTTL() *Error {
	if c.TTLMS == nil || *c.TTLMS < ReserveMSMin || *c.TTLMS > ReserveMSMax {
		return BadRequest("ttl_ms must be %d..%d", ReserveMSMin, ReserveMSMax)
	}
	return nil
}

func (c *Command) checkReserve() *Error {
	if err := c.checkLines(); err != nil {
		return err
	}
	if c.TTLMS == nil {
		c.TTLMS = Ptr[int64](ReserveMSDefault)
	}
	if err := c.checkTTL(); err != nil {
		return err
	}
	return checkText("user", c.User)
}

func (c *Command) checkReservation() *Error {
	return CheckName("reservation", c.Reservation)
}

func (c *Command) checkExtend() *Error {
	if err := c.checkReservation(); err != nil {
		return err
	}
	return c.checkTTL()
}

func (c *Command) checkMove() *Error {
	for _, f := range [...]struct{ name, value string }{{"sku", c.SKU}, {"from", c.From}, {"to", c.To}} {
		if err := CheckName(f.name, f.value); err != nil {
			return err
		}
	}
	if c.From == c.To {
		return BadRequest("from and to are the same location")
	}
	return checkQuantity("quantity", c.Quantity)
}

func (c *Command) checkConfigure() *Error {
	if err := c.checkItem(); err != nil {
		return err
	}
	if c.SafetyStock == nil && c.BackorderLimit == nil && c.LowStock == nil {
		return BadRequest("configure needs at least one of safety_stock, backorder_limit, low_stock")
	}
	for _, f := range [...]struct {
		name  string
		value *int64
	}{{"safety_stock", c.SafetyStock}, {"backorder_limit", c.BackorderLimit}, {"low_stock", c.LowStock}} {
		if f.value != nil && (*f.value < 0 || *f.value > QuantityMax) {
			return BadRequest("%s must be an integer 0..2^53-1", f.name)
		}
	}
	return nil
}

func checkNames(field string, names []string) *Error {
	if len(names) > SelectorsMax {
		return NewError(CodeTooLarge, "%d %s, the limit is %d", len(names), field, SelectorsMax)
	}
	for _, s := range names {
		if err := CheckName(field, s); err != nil {
			return err
		}
	}
	return nil
}

func (c *Command) checkGet() *Error {
	if len(c.SKUs) == 0 {
		return BadRequest("skus is missing or empty")
	}
	if len(c.SKUs) > PageMax {
		return NewError(CodeTooLarge, "%d skus, the limit is %d", len(c.SKUs), PageMax)
	}
	if err := checkNames("skus", c.SKUs); err != nil {
		return err
	}
	if _, err := ParseVector(c.AtLeast); err != nil {
		return BadRequest("at_least: %v", err)
	}
	return c.checkGrid()
}

// checkGrid bounds SKUs times locations, as unknown pairs are answered too.
func (c *Command) checkGrid() *Error {
	if n := len(c.SKUs) * max(1, len(c.Locations)); n > GridMax {
		return NewError(CodeTooLarge, "%d SKUs at %d locations, the limit is %d pairs", len(c.SKUs), len(c.Locations), GridMax)
	}
	return checkNames("locations", c.Locations)
}

// checkSelectors accepts a command without any selector.
func (c *Command) checkSelectors() *Error {
	if n := len(c.SKUs) + len(c.Prefixes) + len(c.Locations) + len(c.Users); n > SelectorsMax {
		return NewError(CodeTooLarge, "%d selectors, the limit is %d", n, SelectorsMax)
	}
	for _, f := range [...]struct {
		name  string
		names []string
	}{{"skus", c.SKUs}, {"prefixes", c.Prefixes}, {"locations", c.Locations}, {"users", c.Users}} {
		if err := checkNames(f.name, f.names); err != nil {
			return err
		}
	}
	return nil
}

func (c *Command) checkSubscribe() *Error {
	if len(c.SKUs)+len(c.Prefixes)+len(c.Locations)+len(c.Users) == 0 && !c.All {
		return BadRequest("subscribe needs at least one of skus, prefixes, all, locations, users")
	}
	if c.IntervalMS < 0 || c.IntervalMS > IntervalMSMax {
		return BadRequest("interval_ms must be 0..%d", IntervalMSMax)
	}
	if c.Since != nil && c.Have != nil {
		return BadRequest("since and have exclude each other")
	}
	if c.Since != nil {
		if _, err := ParseVector(*c.Since); err != nil {
			return BadRequest("since: %v", err)
		}
	}
	if err := c.checkHave(); err != nil {
		return err
	}
	if err := c.checkGrid(); err != nil {
		return err
	}
	return c.checkSelectors()
}

func (c *Command) checkHave() *Error {
	if len(c.Have) > SelectorsMax {
		return NewError(CodeTooLarge, "%d entries in have, the limit is %d", len(c.Have), SelectorsMax)
	}
	for i := range c.Have {
		h := &c.Have[i]
		if h.Location == "" {
			h.Location = DefaultLocation
		}
		if err := CheckName("have: sku", h.SKU); err != nil {
			return err
		}
		if err := CheckName("have: location", h.Location); err != nil {
			return err
		}
		if _, err := ParseVector(h.Version); err != nil {
			return BadRequest("have: version: %v", err)
		}
	}
	return nil
}

func (c *Command) checkHistory() *Error {
	if err := c.checkItem(); err != nil {
		return err
	}
	if c.Limit == 0 {
		c.Limit = 100
	}
	if c.Limit < 1 || c.Limit > HistoryMax {
		return BadRequest("limit must be 1..%d", HistoryMax)
	}
	if c.Region != "" {
		return CheckRegion("region", c.Region)
	}
	return nil
}

func (c *Command) checkOutcome() *Error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if c.Home != "" {
		return CheckRegion("home", c.Home)
	}
	return nil
}

func (c *Command) checkAuth() *Error {
	if c.Token == "" {
		return BadRequest("token is missing")
	}
	return nil
}
