package token

import (
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	// locationURN begins a URI in a client certificate's subject alternative names that
	// binds it to a location, percent-encoded.
	locationURN = "urn:stockmesh:location:"

	// certificatePrefix begins the subject and token id of a caller with a certificate,
	// and no token may have a subject that begins so: in the history they are told apart.
	certificatePrefix = "cert:"
)

// tillRights is what a till may do at its locations. It can't move units away or
// configure: those are for whoever runs the shop.
func tillRights() []protocol.Right {
	return []protocol.Right{
		protocol.RightWatch, protocol.RightHistory, protocol.RightReserve,
		protocol.RightSell, protocol.RightAdjust, protocol.RightCount,
	}
}

// Certificate returns the caller that a client certificate names, nil for none: one that
// isn't bound to a location, has no usable name, is expired or revoked. The certificate
// must be one that TLS has verified.
func (g *Guard) Certificate(cert *x509.Certificate) *protocol.Caller {
	if !g.config.ClientCertificates || cert == nil {
		return nil
	}
	subject := certificatePrefix + cert.Subject.CommonName
	if cert.Subject.CommonName == "" || !nameable(subject) || cert.SerialNumber == nil {
		return nil
	}
	locations := certificateLocations(cert.URIs)
	if len(locations) == 0 {
		return nil
	}
	caller := &protocol.Caller{
		Subject:   subject,
		TokenID:   certificatePrefix + cert.SerialNumber.Text(16),
		IssuedAt:  cert.NotBefore,
		ExpiresAt: cert.NotAfter,
		Access:    protocol.NewAccess(g.config.Region, []protocol.Grant{{Do: tillRights(), Locations: locations}}),
	}
	if g.config.Now().Before(cert.NotBefore) || !g.Valid(caller) {
		return nil
	}
	return caller
}

// certificateLocations returns the locations that a certificate names, none if one of
// them can't be read: a certificate is taken as it was meant or not at all.
func certificateLocations(uris []*url.URL) (locations []string) {
	for _, u := range uris {
		text, ours := strings.CutPrefix(u.String(), locationURN)
		if !ours {
			continue
		}
		location, err := url.PathUnescape(text)
		if err != nil || strings.ContainsAny(text, "?#") || protocol.CheckName("location", location) != nil {
			return nil
		}
		locations = append(locations, location)
	}
	return locations
}
