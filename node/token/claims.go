package token

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	nameBytesMax = 256

	// leeway is how far an issuer's clock may be ahead. A token's end gets none: an
	// issuer whose clock is behind gives a little less time, and nothing breaks.
	leeway = 30 * time.Second

	// secondsMax is the end of the year 9999, which is as far as RFC 3339 goes.
	secondsMax = 253402300799
)

var errNesting = errors.New("arrays and objects are nested too deep")

// claims are what is read of a token's payload.
type claims struct {
	Issuer    string           `json:"iss"`
	Audience  jsontext.Value   `json:"aud"`
	Subject   string           `json:"sub"`
	ID        string           `json:"jti"`
	Expires   *float64         `json:"exp"`
	NotBefore *float64         `json:"nbf"`
	Issued    *float64         `json:"iat"`
	Grants    []jsontext.Value `json:"grants"`
}

// caller reads the payload of a token whose signature is right.
func (g *Guard) caller(payload []byte) (*protocol.Caller, *refusal) {
	var c claims
	if err := unmarshal(payload, &c); err != nil {
		return nil, refusedClaims
	}
	expires, issued, refused := c.times(g.config.Now())
	if refused != nil {
		return nil, refused
	}
	if refused := c.names(&g.config); refused != nil {
		return nil, refused
	}
	grants, err := readGrants(c.Grants)
	if err != nil {
		return nil, refusedClaims
	}
	return &protocol.Caller{
		Subject: c.Subject, TokenID: c.ID, IssuedAt: issued, ExpiresAt: expires,
		Access: protocol.NewAccess(g.config.Region, grants),
	}, nil
}

func (c *claims) times(now time.Time) (expires, issued time.Time, _ *refusal) {
	expires, ok1 := moment(c.Expires)
	issued, ok2 := moment(c.Issued)
	notBefore, ok3 := moment(c.NotBefore)
	switch {
	case !ok1 || !ok2 || !ok3:
		return expires, issued, refusedClaims
	case c.Expires == nil:
		return expires, issued, refusedExpiry
	case !now.Before(expires):
		return expires, issued, refusedExpired
	case notBefore.After(now.Add(leeway)) || issued.After(now.Add(leeway)):
		return expires, issued, refusedEarly
	}
	return expires, issued, nil
}

// moment reads seconds since 1970, with or without a fraction; nil is the zero time.
func moment(seconds *float64) (time.Time, bool) {
	if seconds == nil {
		return time.Time{}, true
	}
	if !(*seconds >= 0 && *seconds <= secondsMax) {
		return time.Time{}, false
	}
	whole, part := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), true
}

func (c *claims) names(config *Config) *refusal {
	switch {
	case config.Issuer != "" && c.Issuer != config.Issuer:
		return refusedIssuer
	case config.Audience != "" && !c.isFor(config.Audience):
		return refusedAudience
	case !nameable(c.Subject) || strings.HasPrefix(c.Subject, certificatePrefix):
		return refusedSubject
	case c.ID != "" && !nameable(c.ID):
		return refusedID
	}
	return nil
}

// isFor reads aud, which is a string or an array of strings.
func (c *claims) isFor(audience string) bool {
	if c.Audience.Kind() == '[' {
		var all []string
		return json.Unmarshal(c.Audience, &all) == nil && slices.Contains(all, audience)
	}
	var one string
	return c.Audience != nil && json.Unmarshal(c.Audience, &one) == nil && one == audience
}

// nameable reports whether a subject or id can stand in the history and in lists.
func nameable(s string) bool {
	return s != "" && len(s) <= nameBytesMax && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// grantClaim is a grant as a token has it.
type grantClaim struct {
	Do        *[]protocol.Right `json:"do"`
	SKUs      jsontext.Value    `json:"skus"`
	Locations jsontext.Value    `json:"locations"`
	Regions   jsontext.Value    `json:"regions"`
	Users     jsontext.Value    `json:"users"`
	Unknown   jsontext.Value    `json:",embed"`
}

// readGrants leaves out a grant with members that aren't known here: they narrow it, and
// what is left would be wider than the issuer meant.
func readGrants(values []jsontext.Value) (grants []protocol.Grant, err error) {
	for _, v := range values {
		var c grantClaim
		if err := json.Unmarshal(v, &c); err != nil {
			return nil, err
		}
		if v.Kind() != '{' {
			return nil, errors.New("a grant is an object")
		}
		if len(c.Unknown) > 0 || c.Do == nil {
			continue
		}
		grant := protocol.Grant{Do: *c.Do}
		for _, list := range []struct {
			to   *[]string
			from jsontext.Value
		}{{&grant.SKUs, c.SKUs}, {&grant.Locations, c.Locations}, {&grant.Regions, c.Regions}, {&grant.Users, c.Users}} {
			if *list.to, err = names(list.from); err != nil {
				return nil, err
			}
		}
		grants = append(grants, grant)
	}
	return grants, nil
}

// names reads a list of a grant. One left out is nil and stands for all. null is refused:
// issuers write it for a list that they found empty, which would mean the contrary.
func names(v jsontext.Value) (list []string, err error) {
	if v == nil {
		return nil, nil
	}
	if v.Kind() != '[' {
		return nil, errors.New("a grant's list is an array")
	}
	list = []string{}
	return list, json.Unmarshal(v, &list)
}
