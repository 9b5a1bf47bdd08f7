package client

import (
	"strconv"

	"github.com/stockmesh/stockmesh/protocol"
)

// appendCommand appends the command's JSON. It is written by hand because it
// runs once per command; a test holds it equal to the struct tags.
func appendCommand(b []byte, c *protocol.Command, id uint64) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, c.Op...)
	b = append(b, `","id":`...)
	b = strconv.AppendUint(b, id, 10)
	b = appendText(b, `,"key":`, c.Key)
	b = appendText(b, `,"home":`, c.Home)
	b = appendText(b, `,"reason":`, c.Reason)
	b = appendText(b, `,"reference":`, c.Reference)
	b = appendText(b, `,"sku":`, c.SKU)
	b = appendText(b, `,"location":`, c.Location)
	b = appendNumber(b, `,"delta":`, c.Delta)
	b = appendOptional(b, `,"on_hand":`, c.OnHand)
	if c.IfVersion != nil {
		b = appendString(append(b, `,"if_version":`...), *c.IfVersion)
	}
	b = appendLines(b, c.Lines)
	b = appendOptional(b, `,"ttl_ms":`, c.TTLMS)
	b = appendText(b, `,"user":`, c.User)
	b = appendText(b, `,"reservation":`, c.Reservation)
	b = appendText(b, `,"from":`, c.From)
	b = appendText(b, `,"to":`, c.To)
	b = appendNumber(b, `,"quantity":`, c.Quantity)
	b = appendOptional(b, `,"safety_stock":`, c.SafetyStock)
	b = appendOptional(b, `,"backorder_limit":`, c.BackorderLimit)
	b = appendOptional(b, `,"low_stock":`, c.LowStock)
	b = appendTexts(b, `,"skus":`, c.SKUs)
	b = appendTexts(b, `,"prefixes":`, c.Prefixes)
	if c.All {
		b = append(b, `,"all":true`...)
	}
	b = appendTexts(b, `,"locations":`, c.Locations)
	b = appendTexts(b, `,"users":`, c.Users)
	if c.Since != nil {
		b = appendString(append(b, `,"since":`...), *c.Since)
	}
	if c.Have != nil {
		b = protocol.AppendJSON(append(b, `,"have":`...), c.Have)
	}
	b = appendNumber(b, `,"interval_ms":`, c.IntervalMS)
	b = appendText(b, `,"at_least":`, c.AtLeast)
	b = appendText(b, `,"region":`, c.Region)
	b = appendNumber(b, `,"limit":`, int64(c.Limit))
	b = appendText(b, `,"before":`, c.Before)
	b = appendText(b, `,"token":`, c.Token)
	b = appendText(b, `,"traceparent":`, c.Traceparent)
	return append(b, '}')
}

func appendLines(b []byte, lines []protocol.Line) []byte {
	if lines == nil {
		return b
	}
	b = append(b, `,"lines":[`...)
	for i := range lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"sku":`...), lines[i].SKU)
		b = appendString(append(b, `,"location":`...), lines[i].Location)
		b = strconv.AppendInt(append(b, `,"quantity":`...), lines[i].Quantity, 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

func appendTexts(b []byte, name string, values []string) []byte {
	if values == nil {
		return b
	}
	b = append(append(b, name...), '[')
	for i, s := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, name...), n, 10)
}

func appendOptional(b []byte, name string, n *int64) []byte {
	if n == nil {
		return b
	}
	return strconv.AppendInt(append(b, name...), *n, 10)
}

// appendString quotes s; nearly all names take the short way.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			return protocol.AppendJSON(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
