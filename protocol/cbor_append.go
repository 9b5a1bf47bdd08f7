package protocol

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// The CBOR encoders, by hand for the same reason as those of JSON; a test holds
// them equal to JSON's. Maps keep the order of the JSON fields and, as all else,
// have a definite length, so the optional fields are counted first.

// Major types of RFC 8949, as they stand in a head's first byte.
const (
	cborUint   = 0 << 5
	cborNeg    = 1 << 5
	cborBytes  = 2 << 5
	cborString = 3 << 5
	cborArray  = 4 << 5
	cborMap    = 5 << 5
	cborTag    = 6 << 5
	cborOther  = 7 << 5 // simple values, floats, break
)

const (
	cborFalse     = cborOther | 20
	cborTrue      = cborOther | 21
	cborNull      = cborOther | 22
	cborUndefined = cborOther | 23
	cborBreak     = cborOther | 31
)

func cborHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= 1<<8-1:
		return append(b, major|24, byte(n))
	case n <= 1<<16-1:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= 1<<32-1:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// cborName appends a field's name, which is shorter than 24 bytes.
func cborName(b []byte, name string) []byte {
	return append(append(b, cborString|byte(len(name))), name...)
}

// cborText appends text. What is not UTF-8 is mended, as in JSON: a reader would
// refuse the whole message for it.
func cborText(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	return append(cborHead(b, cborString, uint64(len(s))), s...)
}

func cborInt(b []byte, n int64) []byte {
	if n < 0 {
		return cborHead(b, cborNeg, uint64(^n))
	}
	return cborHead(b, cborUint, uint64(n))
}

func cborTextField(b []byte, name, value string) []byte {
	return cborText(cborName(b, name), value)
}

func cborIntField(b []byte, name string, n int64) []byte {
	return cborInt(cborName(b, name), n)
}

func cborBoolField(b []byte, name string, v bool) []byte {
	if v {
		return append(cborName(b, name), cborTrue)
	}
	return append(cborName(b, name), cborFalse)
}

// cborTimeField takes the time as JSON writes it. Its 24 characters or more need
// one byte for their length, which goes where the first quote stands.
func cborTimeField(b []byte, name string, t Time) []byte {
	b = append(cborName(b, name), cborString|24)
	at := len(b)
	b = appendTime(b, t)
	b[at] = byte(len(b) - at - 2)
	return b[:len(b)-1]
}

// cborOptional appends a field unless it is empty.
func cborOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return cborTextField(b, name, value)
}

// cborMapOf opens a map of so many fields and one more for each that is there.
func cborMapOf(b []byte, fields int, optional ...bool) []byte {
	for _, there := range optional {
		if there {
			fields++
		}
	}
	return cborHead(b, cborMap, uint64(fields))
}

func cborArrayField(b []byte, name string, n int) []byte {
	return cborHead(cborName(b, name), cborArray, uint64(n))
}

func cborItem(b []byte, it *Item) []byte {
	b = cborMapOf(b, 6, it.UpdatedAt != 0, it.Low)
	b = cborTextField(b, "sku", it.SKU)
	b = cborTextField(b, "location", it.Location)
	b = cborIntField(b, "available", it.Available)
	b = cborIntField(b, "on_hand", it.OnHand)
	b = cborIntField(b, "reserved", it.Reserved)
	b = cborTextField(b, "version", it.Version)
	if it.UpdatedAt != 0 {
		b = cborTimeField(b, "updated_at", it.UpdatedAt)
	}
	if it.Low {
		b = cborBoolField(b, "low", true)
	}
	return b
}

func cborItems(b []byte, items []Item) []byte {
	b = cborArrayField(b, "items", len(items))
	for i := range items {
		b = cborItem(b, &items[i])
	}
	return b
}

func cborReservation(b []byte, r *Reservation) []byte {
	b = cborMapOf(b, 4, r.User != "")
	b = cborTextField(b, "id", r.ID)
	b = cborTextField(b, "state", string(r.State))
	b = cborTimeField(b, "expires_at", r.ExpiresAt)
	b = cborArrayField(b, "lines", len(r.Lines))
	for i := range r.Lines {
		l := &r.Lines[i]
		b = cborMapOf(b, 3)
		b = cborTextField(b, "sku", l.SKU)
		b = cborTextField(b, "location", l.Location)
		b = cborIntField(b, "quantity", l.Quantity)
	}
	return cborOptional(b, "user", r.User)
}

func cborMovement(b []byte, m *Movement) []byte {
	b = cborMapOf(b, 10, m.Key != "", m.Reservation != "", m.Reason != "", m.Reference != "", m.Subject != "", m.Address != "")
	b = cborTextField(b, "sequence", m.Sequence)
	b = cborTimeField(b, "at", m.At)
	b = cborTextField(b, "region", m.Region)
	b = cborTextField(b, "type", m.Type)
	b = cborTextField(b, "sku", m.SKU)
	b = cborTextField(b, "location", m.Location)
	b = cborIntField(b, "on_hand_delta", m.OnHandDelta)
	b = cborIntField(b, "reserved_delta", m.ReservedDelta)
	b = cborIntField(b, "on_hand", m.OnHand)
	b = cborIntField(b, "reserved", m.Reserved)
	b = cborOptional(b, "key", m.Key)
	b = cborOptional(b, "reservation", m.Reservation)
	b = cborOptional(b, "reason", m.Reason)
	b = cborOptional(b, "reference", m.Reference)
	b = cborOptional(b, "subject", m.Subject)
	return cborOptional(b, "address", m.Address)
}
