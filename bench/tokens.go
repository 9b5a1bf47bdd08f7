package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	tokenKeyID = "bench"
	tokenLife  = 24 * time.Hour // longer than any run
)

// restricted are grants that have to be looked through: what a scenario does is allowed
// by the last of them.
var restricted = []protocol.Grant{
	{Do: []protocol.Right{protocol.RightAdjust, protocol.RightMove}, SKUs: []string{"crate-*", "pallet-*"}, Locations: []string{"store-12", "store-14"}},
	{Do: []protocol.Right{protocol.RightSell, protocol.RightReserve}, SKUs: []string{"tee-*"}, Locations: []string{"store-12"}},
	{
		Do:   []protocol.Right{protocol.RightWatch, protocol.RightCount, protocol.RightSell},
		SKUs: []string{"gift-card", hotPrefix + "*"}, Locations: []string{"store-12", protocol.DefaultLocation}, Regions: []string{spawnedRegion},
	},
}

// spawnedRegion is the region of a node that is spawned alone.
const spawnedRegion = "local"

// inspecting are grants to look at everything.
var inspecting = []protocol.Grant{{Do: []protocol.Right{protocol.RightWatch, protocol.RightHistory, protocol.RightAdmin}}}

// issue makes a key, writes its public half where a node can read it, and signs tokens
// with it.
func (t *target) issue() (jwksFile string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	if t.token, err = signed(private, restricted); err != nil {
		return "", err
	}
	if t.inspector, err = signed(private, inspecting); err != nil {
		return "", err
	}
	jwks, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "OKP", "crv": "Ed25519", "kid": tokenKeyID, "alg": "EdDSA", "use": "sig",
		"x": base64.RawURLEncoding.EncodeToString(public),
	}}})
	if err != nil {
		return "", err
	}
	jwksFile = filepath.Join(t.dir, "jwks.json")
	return jwksFile, os.WriteFile(jwksFile, jwks, 0o644)
}

// signed is a token with these grants.
func signed(key ed25519.PrivateKey, grants []protocol.Grant) (string, error) {
	claims := jwt.MapClaims{"sub": "bench", "exp": time.Now().Add(tokenLife).Unix(), "grants": grants}
	made := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	made.Header["kid"] = tokenKeyID
	return made.SignedString(key)
}

// withToken writes a token into an endpoint, in the place of a password. It is sent in
// a header, never as part of the URL.
func withToken(endpoint, token string) (string, error) {
	if token == "" {
		return endpoint, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	u.User = url.UserPassword("", token)
	return u.String(), nil
}

// authorization is the header line for the token of an endpoint, if it has one.
func authorization(u *url.URL) string {
	if token, has := u.User.Password(); has {
		return "Authorization: Bearer " + token + "\r\n"
	}
	return ""
}

// redacted is an endpoint as it may be shown.
func redacted(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "an endpoint that can't be read"
	}
	return u.Redacted()
}
