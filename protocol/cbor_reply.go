package protocol

// cborReply is AppendReply in CBOR.
func cborReply(b []byte, c *Call) []byte {
	b = cborMapOf(b, 2, c.Err == nil && c.Replayed)
	b = cborName(b, "id")
	if len(c.Command.ID) == 0 {
		b = append(b, cborNull)
	} else {
		b = append(b, c.Command.ID...)
	}
	if c.Err != nil {
		return cborError(cborName(b, "error"), c.Err)
	}
	b = cborOK(cborName(b, "ok"), &c.Result)
	if c.Replayed {
		b = cborBoolField(b, "replayed", true)
	}
	return b
}

func cborOK(b []byte, r *Result) []byte {
	switch r.Kind {
	case KindItem:
		return cborItem(cborName(cborMapOf(b, 1), "item"), &r.Items[0])
	case KindItems:
		b = cborItems(cborMapOf(b, 1, r.Behind), r.Items)
		if r.Behind {
			b = cborBoolField(b, "behind", true)
		}
		return b
	case KindReservation:
		return cborReservation(cborName(cborMapOf(b, 1), "reservation"), r.Reservation)
	case KindMovements:
		return cborMovements(b, r)
	case KindOutcome:
		return cborOutcome(b, r)
	case KindSubscribed:
		b = cborIntField(cborMapOf(b, 2), "items", int64(r.Count))
		return cborTextField(b, "cursor", r.Cursor)
	case KindAuth:
		b = cborTextField(cborMapOf(b, 2), "subject", r.Subject)
		return cborTimeField(b, "expires_at", r.ExpiresAt)
	}
	return cborMapOf(b, 0)
}

func cborMovements(b []byte, r *Result) []byte {
	b = cborArrayField(cborMapOf(b, 2), "movements", len(r.Movements))
	for i := range r.Movements {
		b = cborMovement(b, &r.Movements[i])
	}
	return cborTextField(b, "next", r.Next)
}

func cborOutcome(b []byte, r *Result) []byte {
	b = cborBoolField(cborMapOf(b, 1, r.Known), "known", r.Known)
	if !r.Known {
		return b
	}
	b = cborMapOf(cborName(b, "reply"), 1)
	return cborOK(cborName(b, "ok"), r.Outcome)
}

func cborError(b []byte, e *Error) []byte {
	b = cborMapOf(b, 4, e.Details != nil)
	b = cborTextField(b, "code", string(e.Code))
	b = cborTextField(b, "message", e.Message)
	b = cborBoolField(b, "retryable", e.Retryable)
	b = cborIntField(b, "retry_after_ms", e.RetryAfterMS)
	if e.Details != nil {
		b = cborDetails(cborName(b, "details"), e.Details)
	}
	return b
}

func cborDetails(b []byte, d *Details) []byte {
	b = cborMapOf(b, 0, d.State != "", len(d.Lines) > 0, d.Item != nil, d.Outcome != "")
	b = cborOptional(b, "state", string(d.State))
	if len(d.Lines) > 0 {
		b = cborArrayField(b, "lines", len(d.Lines))
		for i := range d.Lines {
			b = cborShortage(b, &d.Lines[i])
		}
	}
	if d.Item != nil {
		b = cborItem(cborName(b, "item"), d.Item)
	}
	return cborOptional(b, "outcome", d.Outcome)
}

func cborShortage(b []byte, s *Shortage) []byte {
	b = cborMapOf(b, 5)
	b = cborTextField(b, "sku", s.SKU)
	b = cborTextField(b, "location", s.Location)
	b = cborIntField(b, "requested", s.Requested)
	b = cborIntField(b, "available", s.Available)
	return cborIntField(b, "elsewhere", s.Elsewhere)
}

func cborStock(b []byte, snapshot bool, items [][]byte) []byte {
	b = cborTextField(cborMapOf(b, 2, snapshot), "op", "stock")
	if snapshot {
		b = cborBoolField(b, "snapshot", true)
	}
	b = cborArrayField(b, "items", len(items))
	for _, it := range items {
		b = append(b, it...)
	}
	return b
}

func cborCursor(b []byte, cursor string) []byte {
	b = cborTextField(cborMapOf(b, 2), "op", "cursor")
	return cborTextField(b, "cursor", cursor)
}

func cborReservationPush(b []byte, r *Reservation) []byte {
	b = cborTextField(cborMapOf(b, 2), "op", "reservation")
	return cborReservation(cborName(b, "reservation"), r)
}
