package server_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/node/server"
)

// secrets are tokens that have been sent to a node, each with what was said of it.
type secrets struct {
	tokens  map[string]string // by what is wrong with each
	answers strings.Builder   // bodies, headers, messages and close reasons
}

func (s *secrets) answer(a answered) {
	fmt.Fprintf(&s.answers, "%d %v %s\n", a.status, a.header, a.body)
}

// parts of a token that tell something: the header is the same for all.
func parts(token string) []string {
	list := []string{token}
	if p := strings.Split(token, "."); len(p) == 3 {
		list = append(list, p[1], p[2])
		if plain, err := base64.RawURLEncoding.DecodeString(p[1]); err == nil {
			list = append(list, string(plain))
		}
	}
	return list
}

// Every way in which a client may send a token, good or bad, and everything that the
// node writes: no part of a token is in it.
func TestTokensAreWrittenNowhere(t *testing.T) {
	l := openLodge(t, func(c *server.Config) { c.RateLimitPerUser, c.MaxConnectionsPerUser = 100000, 100 })
	l.seed("tee-1", "store-1", 1000)
	s := &secrets{tokens: map[string]string{
		"good":       l.keys.token(everything),
		"narrow":     l.keys.token(`[{"do":["watch"],"skus":["other-*"]}]`),
		"forged":     newIssuer(t).token(everything),
		"tampered":   tampered(l.keys.token(everything)),
		"expired":    l.keys.token(everything, expiresIn(-1)),
		"no token":   "canary-that-is-no-token-at-all",
		"two dots":   "canary-head.canary-payload.canary-signature",
		"not base64": "canary!head.canary!payload.canary!signature",
	}}
	for _, token := range s.tokens {
		s.overHTTP(l, token)
		s.inTheURL(t, l, token)
		s.overWebSocket(t, l, token)
		s.broken(t, l, token)
	}
	for _, path := range []string{"/metrics", "/readyz", "/debug/connections", "/revocations", "/nodes", "/debug/pprof/goroutine?debug=2"} {
		s.answer(l.ask(http.MethodGet, l.adminURL(path), "", ""))
	}
	l.end() // sessions end too, and say why
	if !strings.Contains(l.log.String(), `"op":"sell"`) || !strings.Contains(s.answers.String(), "tee-1") {
		t.Fatal("nothing was said in which a token could be")
	}
	for name, token := range s.tokens {
		for _, part := range parts(token) {
			for where, text := range map[string]string{"the log": l.log.String(), "an answer": s.answers.String()} {
				if i := strings.Index(text, part); i >= 0 {
					t.Errorf("the token %s, or a part, is in %s: %q", name, where, text[max(0, i-200):min(len(text), i+len(part)+20)])
				}
			}
		}
	}
}

// tampered changes one letter of the signature.
func tampered(token string) string {
	i := strings.LastIndex(token, ".") + 10
	other := "A"
	if token[i] == 'A' {
		other = "B"
	}
	return token[:i] + other + token[i+1:]
}

func (s *secrets) overHTTP(l *lodge, token string) {
	for _, path := range []string{"/v1/stock", "/v1/stock/tee-1?location=store-1", "/v1/nowhere", "/v1/reservations/eu.nobody", "/v1/stock?limit=x"} {
		s.answer(l.get(path, token))
	}
	const sale = `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`
	s.answer(l.ask(http.MethodPost, l.url("/v1/sales"), token, sale, "Idempotency-Key", l.key()))
	s.answer(l.ask(http.MethodPost, l.url("/v1/sales"), token, sale))
	s.answer(l.ask(http.MethodPost, l.url("/v1/batch"), token, fmt.Sprintf(`[{"op":"auth","token":%q},{"op":"get","skus":["tee-1"]}]`, token)))
	s.answer(l.ask(http.MethodPost, l.url("/v1/sales"), token, fmt.Sprintf(`{"token":%q,"key":"k","lines":7}`, token)))
	s.answer(l.get("/v1/stock", "", "Authorization", token))
	s.answer(l.get("/v1/stock", "", "Authorization", "Basic "+token))
	s.answer(l.get("/v1/stock", "", "Authorization", "Bearer  "+token+" twice"))
	for _, path := range []string{"/readyz", "/revocations", "/debug/connections?top=x"} {
		s.answer(l.ask(http.MethodGet, l.adminURL(path), token, "", "X-Forwarded-For", "192.0.2.1"))
	}
	s.answer(l.ask(http.MethodPost, l.adminURL("/revocations"), token, `{"token":`))
}

// inTheURL: a token there is refused, also a good one.
func (s *secrets) inTheURL(t *testing.T, l *lodge, token string) {
	t.Helper()
	good := l.keys.token(everything)
	for _, name := range []string{"token", "access_token", "jwt", "authorization", "Access_Token", "to%6ben"} {
		query := name + "=" + url.QueryEscape(token)
		for _, path := range []string{"/v1/stock?limit=1&", "/v1/stock/tee-1?", "/v1/stream?all=1&", "/v1/mesh?", "/openapi.json?", "/v1/nowhere?"} {
			for _, header := range []string{"", good} {
				a := l.get(path+query, header)
				if s.answer(a); a.status != http.StatusBadRequest || a.problem().Code != "bad_request" || !strings.Contains(a.body, "URL") {
					t.Errorf("%s%s=...: %d %s", path, name, a.status, a.body)
				}
			}
		}
		for _, header := range []string{"", good} {
			session, res := l.dial("/v1/ws?"+query, header)
			if session != nil || res.StatusCode != http.StatusBadRequest {
				t.Errorf("WebSocket, %s: %s", name, res.Status)
				continue
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || !strings.Contains(string(body), "URL") {
				t.Errorf("WebSocket, %s: %s %v", name, body, err)
			}
			s.answer(answered{res.StatusCode, res.Header, string(body)})
		}
		s.answer(l.ask(http.MethodGet, l.adminURL("/readyz?"+query), "", ""))
		s.answer(l.ask(http.MethodPost, l.adminURL("/revocations?"+query), "", `{}`))
	}
}

func (s *secrets) overWebSocket(t *testing.T, l *lodge, token string) {
	t.Helper()
	if session, res := l.dial("/v1/ws", token); session != nil {
		s.use(l, session)
	} else {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		s.answer(answered{res.StatusCode, res.Header, string(body)})
	}
	session, _ := l.dial("/v1/ws", "")
	session.auth(token)
	s.use(l, session)
	for _, malformed := range []string{
		`{"id":1,"op":"auth","token":%q,"token":"again"}`, `{"id":1,"op":"auth","token":[%q]}`, `{"id":1,"op":"auth","token":%q`,
		`{"id":1,"op":"auth","tokens":%q}`, `{"id":1,"op":%q}`, `%q`, `{"id":1,"op":"get","skus":[%q],"token":7}`, `{"op":"auth","id":[],"token":%q}`,
	} {
		other, _ := l.dial("/v1/ws", "")
		if err := other.conn.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, malformed, token)); err != nil {
			t.Fatal(err)
		}
		other.await("an answer", func(heard []said) bool { return len(heard) > 1 })
		s.note(other)
	}
}

// use does this and that, and looks at the node while the session is open.
func (s *secrets) use(l *lodge, session *session) {
	session.ask(`{"op":"subscribe","all":true}`)
	session.ask(`{"op":"get","skus":["tee-1"]}`)
	session.ask(`{"op":"sell","key":%q,"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`, l.key())
	session.ask(`{"op":"sell","lines":[]}`)
	s.answer(l.ask(http.MethodGet, l.adminURL("/debug/connections?top=1000"), "", ""))
	s.note(session)
}

// note keeps what a session has heard.
func (s *secrets) note(session *session) {
	for _, m := range session.messages() {
		s.answers.WriteString(m.raw + "\n")
	}
}

// broken sends what is no HTTP at all, and requests that the server's own code refuses.
func (s *secrets) broken(t *testing.T, l *lodge, token string) {
	t.Helper()
	for _, request := range []string{
		"GET /v1/stock HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nBroken header\r\n\r\n",
		"GET /v1/stock HTTP/9.9\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"Authorization: Bearer " + token + "\r\n\r\n",
		"PRI * HTTP/2.0\r\nAuthorization: Bearer " + token + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(&s.answers, bufio.NewReader(conn)) // however it ends
		conn.Close()
	}
}
