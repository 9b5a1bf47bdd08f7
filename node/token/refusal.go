package token

import "github.com/stockmesh/stockmesh/protocol"

// refusal says why a token isn't taken.
type refusal struct {
	result  string // for the metric; one of few
	message string // for the client; holds nothing that it sent
	code    protocol.Code
	retryMS int64 // above 0: the same token may be good then
}

func refuse(result, message string) *refusal {
	return &refusal{result: result, message: message, code: protocol.CodeUnauthorized}
}

// What is found out before the signature is checked tells nothing that the sender
// doesn't know; the claims are looked at after it.
var (
	refusedNotTaken  = refuse("not_taken", "this node takes no tokens")
	refusedSize      = refuse("too_large", "the token is larger than 16 KiB")
	refusedForm      = refuse("malformed", "the token is no signed JWT")
	refusedAlgorithm = refuse("algorithm", "the token's algorithm is not EdDSA, ES256 or RS256")
	refusedFit       = refuse("algorithm", "the token's algorithm doesn't fit its key")
	refusedCritical  = refuse("critical", "the token has critical header fields, of which none is known")
	refusedKey       = refuse("unknown_key", "the token is signed with an unknown key")
	refusedSignature = refuse("signature", "the token's signature is wrong")
	refusedClaims    = refuse("claims", "the token's claims can't be read")
	refusedExpiry    = refuse("no_expiry", "the token has no expiry")
	refusedExpired   = refuse("expired", "the token has expired")
	refusedEarly     = refuse("early", "the token is not valid yet")
	refusedIssuer    = refuse("issuer", "the token has another issuer")
	refusedAudience  = refuse("audience", "the token is for another audience")
	refusedSubject   = refuse("subject", "the token has no subject of 1..256 bytes without control characters, or one that begins with cert:")
	refusedID        = refuse("token_id", "the token's id has more than 256 bytes or control characters")
	refusedRevoked   = refuse("revoked", "the token has been revoked")
)

// later is the refusal where the keys couldn't be read again just now, so that the same
// token may be taken in a while; as it is for 0.
func (r *refusal) later(retryMS int64) *refusal {
	copied := *r
	copied.retryMS = retryMS
	return &copied
}

func noKeys(retryMS int64) *refusal {
	return &refusal{
		result: "no_keys", message: "there are no keys to check tokens with right now",
		code: protocol.CodeUnavailable, retryMS: retryMS,
	}
}

func (r *refusal) err() *protocol.Error {
	if r.retryMS > 0 {
		return protocol.RetryLater(r.code, r.retryMS, "%s", r.message)
	}
	return protocol.NewError(r.code, "%s", r.message)
}
