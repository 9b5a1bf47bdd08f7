package protocol

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Time is an instant in milliseconds since the Unix epoch. On the wire it is
// RFC 3339 in UTC with milliseconds; zero is left out.
type Time int64

// TimeOf truncates t to whole milliseconds.
func TimeOf(t time.Time) Time { return Time(t.UnixMilli()) }

// Std returns the instant as a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMilli(int64(t)).UTC() }

const timeLayout = "2006-01-02T15:04:05.000Z"

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return t.Std().AppendFormat(nil, timeLayout), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) error {
	p, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("time %q: %w", b, err)
	}
	*t = TimeOf(p)
	return nil
}

// Item is one SKU at one location as clients see it: sums over all regions.
type Item struct {
	SKU       string `json:"sku"`
	Location  string `json:"location"`
	Available int64  `json:"available"` // max(0, on_hand - reserved - safety stock + backorder limit)
	OnHand    int64  `json:"on_hand"`   // negative: sold on backorder and still owed
	Reserved  int64  `json:"reserved"`  // held by live reservations
	Version   string `json:"version"`   // row version per region, see Vector
	UpdatedAt Time   `json:"updated_at,omitzero"`
	Low       bool   `json:"low,omitzero"` // available <= low_stock
}

// Key names the item.
func (it *Item) Key() ItemKey { return ItemKey{SKU: it.SKU, Location: it.Location} }

// Line is a quantity of one item within a reserve or a sell.
type Line struct {
	SKU      string `json:"sku"`
	Location string `json:"location"`
	Quantity int64  `json:"quantity"`
}

// State is where a reservation stands.
type State string

// The states of a reservation; each ends exactly once.
const (
	Held      State = "held"
	Confirmed State = "confirmed"
	Released  State = "released"
	Expired   State = "expired"
)

// Reservation is a claim on units that ends by confirm, release or expiry. The
// part of ID before the first dot is its home region.
type Reservation struct {
	ID        string `json:"id"`
	State     State  `json:"state"`
	ExpiresAt Time   `json:"expires_at"`
	Lines     []Line `json:"lines"`
	User      string `json:"user,omitzero"`
}

// Movement is one change of one item, in one region's order.
type Movement struct {
	Sequence      string `json:"sequence"` // region.shard.log sequence.index
	At            Time   `json:"at"`
	Region        string `json:"region"`
	Type          string `json:"type"`
	SKU           string `json:"sku"`
	Location      string `json:"location"`
	OnHandDelta   int64  `json:"on_hand_delta"`
	ReservedDelta int64  `json:"reserved_delta"`
	OnHand        int64  `json:"on_hand"`  // this region's, after it
	Reserved      int64  `json:"reserved"` // this region's, after it
	Key           string `json:"key,omitzero"`
	Reservation   string `json:"reservation,omitzero"`
	Reason        string `json:"reason,omitzero"`
	Reference     string `json:"reference,omitzero"`
	Subject       string `json:"subject,omitzero"`
	Address       string `json:"address,omitzero"` // it was asked for from, without port
}

// Have names the version of an item that a subscriber already holds.
type Have struct {
	SKU      string `json:"sku"`
	Location string `json:"location"`
	Version  string `json:"version"`
}

// Home returns the region named by a reservation's or movement's id.
func Home(id string) string {
	region, _, _ := strings.Cut(id, ".")
	return region
}

// CheckName says what is wrong with a SKU or location: 1..128 bytes of valid
// UTF-8 without control characters. Names are compared byte by byte.
func CheckName(field, s string) *Error {
	if s == "" {
		return BadRequest("%s is missing or empty", field)
	}
	return checkText(field, s)
}

// checkText accepts the empty string.
func checkText(field, s string) *Error {
	if len(s) > NameBytesMax {
		return BadRequest("%s is %d bytes long, the limit is %d", field, len(s), NameBytesMax)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return checkRunes(field, s)
		}
	}
	return nil
}

func checkRunes(field, s string) *Error {
	if !utf8.ValidString(s) {
		return BadRequest("%s is not valid UTF-8", field)
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return BadRequest("%s contains the control character U+%04X", field, r)
		}
	}
	return nil
}

// CheckRegion says what is wrong with a region or node name: [a-z0-9-]{1,32}.
func CheckRegion(field, s string) *Error {
	if len(s) < 1 || len(s) > 32 {
		return BadRequest("%s must be 1 to 32 characters of a-z, 0-9 and -", field)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return BadRequest("%s must be 1 to 32 characters of a-z, 0-9 and -", field)
		}
	}
	return nil
}
