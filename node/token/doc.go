// Package token tells who a client is: it checks the JWT that a client sends, or reads
// the client certificate that TLS has verified, and says whether a caller that was let
// in may stay.
//
// A Guard holds the public keys of the token issuer, from a JWKS URL or a file, and
// keeps them fresh. It knows nothing about connections or commands: what a caller may
// do is protocol.Access, which the edge and the API ask. DESIGN.md has the reasons.
package token
