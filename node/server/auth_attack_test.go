package server_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// forgeries are tokens that must not be taken. What they claim would be everything.
func forgeries(t *testing.T, l *lodge) map[string]string {
	t.Helper()
	good, wide := l.keys.token(`[]`, subject("mallory")), l.keys.token(everything)
	payload := strings.Split(wide, ".")[1]
	encode := base64.RawURLEncoding.EncodeToString
	der, err := x509.MarshalPKIXPublicKey(l.keys.public())
	if err != nil {
		t.Fatal(err)
	}
	thief, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(method jwt.SigningMethod, key any, header string) string {
		text := encode([]byte(header)) + "." + payload
		signature, err := method.Sign(text, key)
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + encode(signature)
	}
	kid := fmt.Sprintf(`"kid":%q`, l.keys.kid)
	hs := `{"alg":"HS256",` + kid + `}`
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode(other.Public().(ed25519.PublicKey))})
	if err != nil {
		t.Fatal(err)
	}
	ed := jwt.SigningMethodEdDSA
	m := map[string]string{
		"none, unsigned":              encode([]byte(`{"alg":"none"}`)) + "." + payload + ".",
		"nOnE, with key":              encode([]byte(`{"alg":"nOnE",`+kid+`}`)) + "." + payload + ".",
		"none, with a signature":      encode([]byte(`{"alg":"none",`+kid+`}`)) + wide[strings.Index(wide, "."):],
		"no algorithm":                encode([]byte(`{`+kid+`}`)) + wide[strings.Index(wide, "."):],
		"signature left out":          wide[:strings.LastIndex(wide, ".")+1],
		"HS256 of the public key":     sign(jwt.SigningMethodHS256, []byte(l.keys.public()), hs),
		"HS256 of its PEM":            sign(jwt.SigningMethodHS256, pemKey, hs),
		"HS256 of its DER":            sign(jwt.SigningMethodHS256, der, hs),
		"HS256 of its base64":         sign(jwt.SigningMethodHS256, []byte(encode(l.keys.public())), hs),
		"HS512 of the empty key":      sign(jwt.SigningMethodHS512, []byte{}, `{"alg":"HS512"}`),
		"RS256, the key's id":         sign(jwt.SigningMethodRS256, thief, `{"alg":"RS256",`+kid+`}`),
		"its own key in the header":   sign(ed, other, `{"alg":"EdDSA","jwk":`+string(jwk)+`}`),
		"its own key under the id":    sign(ed, other, `{"alg":"EdDSA",`+kid+`,"jwk":`+string(jwk)+`}`),
		"keys to be fetched":          sign(ed, other, `{"alg":"EdDSA","jku":"http://127.0.0.1:1/jwks","kid":"x"}`),
		"an id that is a path":        sign(ed, other, `{"alg":"EdDSA","kid":"../../../../dev/null"}`),
		"an algorithm said twice":     sign(ed, l.keys.key, `{"alg":"none","alg":"EdDSA",`+kid+`}`),
		"critical header":             sign(ed, l.keys.key, `{"alg":"EdDSA",`+kid+`,"crit":["exp"]}`),
		"claims of another one":       wide[:strings.LastIndex(wide, ".")] + good[strings.LastIndex(good, "."):],
		"good, with something behind": wide + ".more",
		"good, padded":                wide + "==",
	}
	m["large"] = m["its own key under the id"] + strings.Repeat("A", 16<<10)
	for _, depth := range []int{20, 1000, 3000} {
		deep := strings.Repeat(`{"a":[`, depth) + strings.Repeat(`]}`, depth)
		m[fmt.Sprintf("header %d deep", depth)] = encode([]byte(`{"alg":"EdDSA","x":`+deep+`}`)) + "." + payload + "." + encode(make([]byte, 64))
		if depth <= 1000 { // a larger one is too large
			m[fmt.Sprintf("claims %d deep, well signed", depth)] = l.keys.token(everything, func(c jwt.MapClaims) { c["x"] = json.RawMessage(deep) })
		}
		m[fmt.Sprintf("grants open %d", depth)] = encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode([]byte(strings.Repeat(`[`, 2*depth))) + ".AAAA"
	}
	return m
}

// witness sells all the while, and fails where the node lets it down.
func (l *lodge) witness(token string) (stop func()) {
	session := l.open(token)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			if ctx.Err() != nil && n > 0 {
				ended <- nil
				return
			}
			reply, _, err := session.try(`{"op":"sell","key":"witness-%d","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`, n)
			if err == nil && reply.Error != nil {
				err = reply.Error
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("somebody else's sale: %v", err)
		}
	}
}

// No forged token is taken, however it comes, and nobody else notices.
func TestForgedTokens(t *testing.T) {
	l := openLodge(t)
	l.seed("tee-1", "store-1", 1_000_000)
	stop := l.witness(l.keys.token(everything))
	known := l.open(l.keys.token(everything))
	for name, token := range forgeries(t, l) {
		if a := l.get("/v1/stock", token); a.status != http.StatusUnauthorized || a.problem().Code != "unauthorized" {
			t.Errorf("%s, HTTP: %d %s", name, a.status, a.body)
		}
		if a := l.ask(http.MethodGet, l.adminURL("/metrics"), token, "", "X-Forwarded-For", "192.0.2.1"); a.status != http.StatusUnauthorized {
			t.Errorf("%s, admin: %d %s", name, a.status, a.body)
		}
		if code := known.auth(token); code != "unauthorized" { // it stays who it is
			t.Errorf("%s, renewing: %s", name, code)
		}
		session := l.open("")
		if len(token) < 4000 { // there is no room for larger ones: TestLargeMessagesOfStrangers
			if code := session.auth(token); code != "unauthorized" {
				t.Errorf("%s, auth: %s", name, code)
			}
			if reply, _ := session.ask(`{"op":"get","skus":["tee-1"]}`); reply.code() != "unauthorized" {
				t.Errorf("%s, a command after it: %s", name, reply.code())
			}
		}
		_ = session.conn.CloseNow()
		// One whose head is too large as such is a bad request.
		if session, res := l.dial("/v1/ws", token); session != nil || res.StatusCode != 401 && (len(token) < 7000 || res.StatusCode != 400) {
			t.Errorf("%s, handshake: %s", name, res.Status)
		}
	}
	stop()
}

// Headers without end are cut off, and the node goes on.
func TestHugeHeaders(t *testing.T) {
	l := openLodge(t)
	l.seed("tee-1", "store-1", 1_000_000)
	stop := l.witness(l.keys.token(everything))
	for _, size := range []int{17 << 10, 1 << 20, 8 << 20} {
		for _, line := range []string{"GET /v1/stock HTTP/1.1\r\n", "GET /v1/ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", "POST /v1/sales HTTP/1.1\r\n"} {
			status, err := l.flood(line+"Host: x\r\nAuthorization: Bearer ", size)
			if err != nil {
				t.Errorf("%.20q with %d bytes: %v", line, size, err)
			}
			if status != "" && !strings.Contains(status, " 400 ") && !strings.Contains(status, " 401 ") && !strings.Contains(status, " 431 ") {
				t.Errorf("%.20q with %d bytes: %s", line, size, status)
			}
		}
	}
	stop()
	if a := l.get("/v1/stock", l.keys.token(everything)); a.status != http.StatusOK {
		t.Errorf("after it: %d %s", a.status, a.body)
	}
}

// flood sends a head with a long token and returns the line of the answer, "" where the
// connection was cut before anybody could read it. It ends when the node closes.
func (l *lodge) flood(head string, size int) (status string, err error) {
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(hang)); err != nil {
		return "", err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.Copy(conn, io.MultiReader(strings.NewReader(head), io.LimitReader(letters{}, int64(size)), strings.NewReader("\r\nConnection: close\r\n\r\n")))
	}()
	answer, err := io.ReadAll(conn)
	conn.Close()
	<-written
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return "", err
	}
	status, _, _ = strings.Cut(string(answer), "\r\n")
	return status, nil
}

// letters is a reader that never ends.
type letters struct{}

// Read implements io.Reader.
func (letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}
