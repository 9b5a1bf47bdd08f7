package protocol

import (
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The encoders below are written by hand because they run once per pushed item
// and once per reply; a test holds them equal to the struct tags.

// AppendItem appends the item's JSON.
func AppendItem(b []byte, it *Item) []byte {
	b = append(b, `{"sku":`...)
	b = appendString(b, it.SKU)
	b = append(b, `,"location":`...)
	b = appendString(b, it.Location)
	b = append(b, `,"available":`...)
	b = strconv.AppendInt(b, it.Available, 10)
	b = append(b, `,"on_hand":`...)
	b = strconv.AppendInt(b, it.OnHand, 10)
	b = append(b, `,"reserved":`...)
	b = strconv.AppendInt(b, it.Reserved, 10)
	b = append(b, `,"version":"`...)
	b = append(b, it.Version...)
	b = append(b, '"')
	if it.UpdatedAt != 0 {
		b = append(b, `,"updated_at":`...)
		b = appendTime(b, it.UpdatedAt)
	}
	if it.Low {
		b = append(b, `,"low":true`...)
	}
	return append(b, '}')
}

func appendItems(b []byte, items []Item) []byte {
	b = append(b, '[')
	for i := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendItem(b, &items[i])
	}
	return append(b, ']')
}

// AppendReservation appends the reservation's JSON.
func AppendReservation(b []byte, r *Reservation) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, r.ID)
	b = append(b, `,"state":"`...)
	b = append(b, r.State...)
	b = append(b, `","expires_at":`...)
	b = appendTime(b, r.ExpiresAt)
	b = append(b, `,"lines":[`...)
	for i := range r.Lines {
		if i > 0 {
			b = append(b, ',')
		}
		l := &r.Lines[i]
		b = append(b, `{"sku":`...)
		b = appendString(b, l.SKU)
		b = append(b, `,"location":`...)
		b = appendString(b, l.Location)
		b = append(b, `,"quantity":`...)
		b = strconv.AppendInt(b, l.Quantity, 10)
		b = append(b, '}')
	}
	b = append(b, ']')
	b = appendOptional(b, `,"user":`, r.User)
	return append(b, '}')
}

// AppendMovement appends the movement's JSON.
func AppendMovement(b []byte, m *Movement) []byte {
	b = append(b, `{"sequence":"`...)
	b = append(b, m.Sequence...)
	b = append(b, `","at":`...)
	b = appendTime(b, m.At)
	b = append(b, `,"region":"`...)
	b = append(b, m.Region...)
	b = append(b, `","type":"`...)
	b = append(b, m.Type...)
	b = append(b, `","sku":`...)
	b = appendString(b, m.SKU)
	b = append(b, `,"location":`...)
	b = appendString(b, m.Location)
	b = append(b, `,"on_hand_delta":`...)
	b = strconv.AppendInt(b, m.OnHandDelta, 10)
	b = append(b, `,"reserved_delta":`...)
	b = strconv.AppendInt(b, m.ReservedDelta, 10)
	b = append(b, `,"on_hand":`...)
	b = strconv.AppendInt(b, m.OnHand, 10)
	b = append(b, `,"reserved":`...)
	b = strconv.AppendInt(b, m.Reserved, 10)
	b = appendOptional(b, `,"key":`, m.Key)
	b = appendOptional(b, `,"reservation":`, m.Reservation)
	b = appendOptional(b, `,"reason":`, m.Reason)
	b = appendOptional(b, `,"reference":`, m.Reference)
	b = appendOptional(b, `,"subject":`, m.Subject)
	b = appendOptional(b, `,"address":`, m.Address)
	return append(b, '}')
}

// AppendOK appends the ok object of a reply.
func AppendOK(b []byte, r *Result) []byte {
	switch r.Kind {
	case KindItem:
		b = append(b, `{"item":`...)
		b = AppendItem(b, &r.Items[0])
	case KindItems:
		b = append(b, `{"items":`...)
		b = appendItems(b, r.Items)
		if r.Behind {
			b = append(b, `,"behind":true`...)
		}
	case KindReservation:
		b = append(b, `{"reservation":`...)
		b = AppendReservation(b, r.Reservation)
	case KindMovements:
		b = appendMovements(b, r)
	case KindOutcome:
		if !r.Known {
			return append(b, `{"known":false}`...)
		}
		b = append(b, `{"known":true,"reply":{"ok":`...)
		b = AppendOK(b, r.Outcome)
		b = append(b, '}')
	case KindSubscribed:
		b = append(b, `{"items":`...)
		b = strconv.AppendInt(b, int64(r.Count), 10)
		b = append(b, `,"cursor":"`...)
		b = append(b, r.Cursor...)
		b = append(b, '"')
	case KindAuth:
		b = append(b, `{"subject":`...)
		b = appendString(b, r.Subject)
		b = append(b, `,"expires_at":`...)
		b = appendTime(b, r.ExpiresAt)
	default:
		b = append(b, '{')
	}
	return append(b, '}')
}

func appendMovements(b []byte, r *Result) []byte {
	b = append(b, `{"movements":[`...)
	for i := range r.Movements {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendMovement(b, &r.Movements[i])
	}
	b = append(b, `],"next":`...)
	return appendString(b, r.Next)
}

// AppendReply appends the one reply of a call: {"id":...,"ok":{...}} or
// {"id":...,"error":{...}}.
func AppendReply(b []byte, c *Call) []byte {
	b = append(b, `{"id":`...)
	if len(c.Command.ID) == 0 {
		b = append(b, "null"...)
	} else {
		b = append(b, c.Command.ID...)
	}
	if c.Err != nil {
		b = append(b, `,"error":`...)
		b = AppendError(b, c.Err)
		return append(b, '}')
	}
	b = append(b, `,"ok":`...)
	b = AppendOK(b, &c.Result)
	if c.Replayed {
		b = append(b, `,"replayed":true`...)
	}
	return append(b, '}')
}

// AppendError appends the error object.
func AppendError(b []byte, e *Error) []byte {
	b = append(b, `{"code":"`...)
	b = append(b, e.Code...)
	b = append(b, `","message":`...)
	b = appendString(b, e.Message)
	b = append(b, `,"retryable":`...)
	b = strconv.AppendBool(b, e.Retryable)
	b = append(b, `,"retry_after_ms":`...)
	b = strconv.AppendInt(b, e.RetryAfterMS, 10)
	if e.Details != nil {
		b = append(b, `,"details":`...)
		b = AppendDetails(b, e.Details)
	}
	return append(b, '}')
}

// AppendDetails appends the details object of an error.
func AppendDetails(b []byte, d *Details) []byte {
	start := len(b)
	b = appendOptional(b, `,"state":`, string(d.State))
	if len(d.Lines) > 0 {
		b = append(b, `,"lines":[`...)
		for i := range d.Lines {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendShortage(b, &d.Lines[i])
		}
		b = append(b, ']')
	}
	if d.Item != nil {
		b = append(b, `,"item":`...)
		b = AppendItem(b, d.Item)
	}
	b = appendOptional(b, `,"outcome":`, d.Outcome)
	if len(b) == start {
		return append(b, "{}"...)
	}
	b[start] = '{'
	return append(b, '}')
}

func appendShortage(b []byte, s *Shortage) []byte {
	b = append(b, `{"sku":`...)
	b = appendString(b, s.SKU)
	b = append(b, `,"location":`...)
	b = appendString(b, s.Location)
	b = append(b, `,"requested":`...)
	b = strconv.AppendInt(b, s.Requested, 10)
	b = append(b, `,"available":`...)
	b = strconv.AppendInt(b, s.Available, 10)
	b = append(b, `,"elsewhere":`...)
	b = strconv.AppendInt(b, s.Elsewhere, 10)
	return append(b, '}')
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

// appendString quotes s. Nearly all names are plain ASCII and take the short way.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			// Invalid UTF-8 comes back as an error beside mangled text; every
			// string here was checked when it came in.
			quoted, _ := jsontext.AppendQuote(b, s)
			return quoted
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendTime writes the digits itself: the time package's formatting takes longer
// than the rest of an item.
func appendTime(b []byte, t Time) []byte {
	const dayMS = 24 * 60 * 60 * 1000
	if t < 0 || t > 253402300799999 { // the end of the year 9999
		b = append(b, '"')
		b = t.Std().AppendFormat(b, timeLayout)
		return append(b, '"')
	}
	year, month, day := civil(int(t / dayMS))
	ms := int(t % dayMS)
	b = append(b, '"')
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), month, 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), ms/3600000, 2)
	b = appendDigits(append(b, ':'), ms/60000%60, 2)
	b = appendDigits(append(b, ':'), ms/1000%60, 2)
	b = appendDigits(append(b, '.'), ms%1000, 3)
	return append(b, 'Z', '"')
}

// civil is the date of a day counted from 1970-01-01. Years are counted from
// March, so that the leap day is the last of its year; 400 of them are an era.
func civil(days int) (year, month, day int) {
	days += 719468 // since 0000-03-01
	era, n := days/146097, days%146097
	year = (n - n/1460 + n/36524 - n/146096) / 365
	n -= 365*year + year/4 - year/100
	m := (5*n + 2) / 153
	day = n - (153*m+2)/5 + 1
	month = (m+2)%12 + 1
	if month <= 2 {
		year++
	}
	return era*400 + year, month, day
}

func appendDigits(b []byte, n, digits int) []byte {
	b = append(b, "0000"[:digits]...)
	for i := len(b) - 1; digits > 0; digits-- {
		b[i] = byte('0' + n%10)
		n /= 10
		i--
	}
	return b
}
