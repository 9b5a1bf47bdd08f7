package protocol

import "strings"

// Bearer returns the token of an Authorization header.
func Bearer(header string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// IsTokenParameter reports whether a query parameter has a name by which a token is
// usually meant. URLs end up in logs and histories, so none is ever taken from there.
func IsTokenParameter(name string) bool {
	switch strings.ToLower(name) {
	case "token", "access_token", "jwt", "authorization":
		return true
	}
	return false
}
