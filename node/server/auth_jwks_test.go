package server_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
)

// loginService serves keys. What it answers can be changed.
type loginService struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
}

func (s *loginService) answers(h http.HandlerFunc) { s.handler.Store(&h) }

func (s *loginService) serves(text string) {
	s.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
}

// newLoginService listens at addr, "" for any.
func newLoginService(t *testing.T, addr string) *loginService {
	t.Helper()
	s := &loginService{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.handler.Load())(w, r) }))
	if addr != "" {
		s.Listener.Close()
		eventually(t, addr, hang, func() (err error) { s.Listener, err = net.Listen("tcp", addr); return err })
	}
	s.serves("")
	t.Cleanup(s.Close)
	return s
}

func keysAt(url string) func(*server.Config) { return func(c *server.Config) { c.JWKS = url } }

// readiness is what the admin port says, with the status.
func (l *lodge) readiness() (status int, said string) {
	l.t.Helper()
	a := l.ask(http.MethodGet, l.adminURL("/readyz"), "", "")
	return a.status, a.body
}

// Where the keys can't be had the node starts, says so and lets nobody in; when they
// can, it does.
func TestKeysThatComeLater(t *testing.T) {
	t.Parallel()
	probe := newLoginService(t, "")
	addr := probe.Listener.Addr().String()
	probe.Listener.Close() // nobody is there
	l := openLodge(t, keysAt("http://"+addr+"/jwks.json?secret=canary"))
	status, said := l.readiness()
	if status != http.StatusServiceUnavailable || !strings.Contains(said, `"unhealthy"`) || !strings.Contains(said, "keys") || !strings.Contains(said, "refused") {
		t.Errorf("without keys it is %d %s", status, said)
	}
	token := l.keys.token(everything)
	a := l.get("/v1/stock", token)
	if p := a.problem(); a.status != http.StatusServiceUnavailable || p.Code != "unavailable" || !p.Retryable || p.RetryAfterMS <= 0 || a.header.Get("Retry-After") == "" {
		t.Errorf("a token, HTTP: %d %v %s", a.status, a.header, a.body)
	}
	if session, res := l.dial("/v1/ws", token); session != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a token, handshake: %s %v", res.Status, res.Header)
	}
	session, _ := l.dial("/v1/ws", "")
	if reply, _ := session.ask(`{"op":"auth","token":%q}`, token); reply.code() != "unavailable" || !reply.Error.Retryable || reply.Error.RetryAfterMS <= 0 {
		t.Errorf("a token, auth: %s", reply.raw)
	}
	if reply, _ := session.ask(`{"op":"get","skus":["A"]}`); reply.code() != "unauthorized" {
		t.Errorf("a command: %s", reply.raw)
	}
	_ = session.conn.CloseNow()

	service := newLoginService(t, addr)
	service.serves(jwksOf(l.keys))
	service.Start()
	eventually(t, "the token to be taken", hang, func() error {
		if a := l.get("/v1/stock", token); a.status != http.StatusOK {
			return errors.New(a.body)
		}
		return nil
	})
	if status, said := l.readiness(); status != http.StatusOK {
		t.Errorf("with keys it is %d %s", status, said)
	}
	if strings.Contains(l.log.String()+said, "canary") {
		t.Error("what the URL says behind the ? was written down")
	}
}

// A login service that takes its time keeps nobody waiting who has no need of it.
func TestSlowKeysHoldNobodyElseUp(t *testing.T) {
	t.Parallel()
	service := newLoginService(t, "")
	service.Start()
	keys := newIssuer(t)
	service.serves(jwksOf(keys))
	l := openLodge(t, keysAt(service.URL))
	l.keys = keys
	l.seed("tee-1", "store-1", 1_000_000)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	service.answers(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte(jwksOf(keys)))
	})
	freed := sync.OnceFunc(func() { close(release) })
	defer freed()
	known := l.keys.token(everything)
	standing := l.open(known)
	unknown := newIssuer(t)
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if a, err := l.tryAsk(http.MethodGet, l.url("/v1/stock"), unknown.token(everything), ""); err != nil || a.status != http.StatusUnauthorized {
				t.Errorf("an unknown key: %v %v", a, err)
			}
		})
	}
	pending, _ := l.dial("/v1/ws", "")
	pending.tell(fmt.Sprintf(`{"op":"auth","id":1,"token":%q}`, unknown.token(everything)))
	received(t, asked, "the service to be asked") // from here on it hangs
	for n := range 50 {
		standing.must(`{"op":"sell","key":"slow-%d","lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`, n)
		if a := l.get("/v1/stock", known); a.status != http.StatusOK {
			t.Fatalf("a known key: %d %s", a.status, a.body)
		}
		if code := l.open(known).auth(l.keys.token(everything)); code != "ok" {
			t.Fatalf("another token of a known key: %s", code)
		}
	}
	if status, text := l.readiness(); status != http.StatusOK {
		t.Errorf("it is %d %s", status, text)
	}
	waiting.Wait() // they don't wait for the service: it still hangs
	pending.await("the auth to be refused", func(heard []said) bool { return len(heard) > 1 && heard[1].code() == "unauthorized" })
	if n := len(asked); n > 0 {
		t.Errorf("the service was asked %d times more while it had not answered", n)
	}
}

// Keys roll while clients work: nobody is refused.
func TestKeysOfAServiceRoll(t *testing.T) {
	t.Parallel()
	service := newLoginService(t, "")
	service.Start()
	before, after := newIssuer(t), newIssuer(t)
	service.serves(jwksOf(before))
	l := openLodge(t, keysAt(service.URL))
	l.keys = before
	l.seed("tee-1", "store-1", 1_000_000)
	var signer atomic.Pointer[issuer]
	signer.Store(before)
	stop, sold := make(chan struct{}), make(chan *issuer, 10_000)
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				by := signer.Load()
				a, err := l.tryAsk(http.MethodPost, l.url("/v1/sales"), by.token(everything), `{"lines":[{"sku":"tee-1","location":"store-1","quantity":1}]}`, "Idempotency-Key", fmt.Sprintf("roll-%d-%d", i, n))
				if err != nil || a.status != http.StatusOK {
					t.Errorf("a sale while keys roll: %v %v", a, err)
					return
				}
				select {
				case sold <- by:
				default:
				}
			}
		})
	}
	session := l.open(before.token(everything))
	await := func(by *issuer, n int) {
		timer := time.NewTimer(hang)
		defer timer.Stop()
		for n > 0 {
			select {
			case who := <-sold:
				if who == by {
					n--
				}
			case <-timer.C:
				t.Error("no sale")
				return
			}
		}
	}
	await(before, 20)
	service.serves(jwksOf(before, after))
	await(before, 20)
	signer.Store(after) // all at once sign with a key that no node has seen
	await(after, 20)
	if code := session.auth(after.token(everything)); code != "ok" {
		t.Errorf("renewing with the new key: %s", code)
	}
	service.serves(jwksOf(after))
	await(after, 20)
	close(stop)
	clients.Wait()
	if code := session.auth(after.token(everything)); code != "ok" {
		t.Errorf("at the end: %s", code)
	}
}

// A service that answers rubbish changes nothing. (A set without keys isn't: it is the
// emergency stop.)
func TestRubbishInPlaceOfKeys(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"rubbish":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>login</html>")) },
		"an error":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"too much":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) },
		"a cut":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"symmetric": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}`))
		},
		"half a file": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[{"kty":"OKP"`)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newLoginService(t, "")
			service.Start()
			keys := newIssuer(t)
			service.serves(jwksOf(keys))
			l := openLodge(t, keysAt(service.URL))
			l.keys = keys
			asked := make(chan struct{}, 100)
			service.answers(func(w http.ResponseWriter, r *http.Request) { asked <- struct{}{}; h(w, r) })
			a := l.get("/v1/stock", newIssuer(t).token(everything)) // has them read again
			if p := a.problem(); a.status != http.StatusUnauthorized || !p.Retryable {
				t.Errorf("an unknown key: %d %s", a.status, a.body)
			}
			received(t, asked, "the service to be asked")
			if a := l.get("/v1/stock", l.keys.token(everything)); a.status != http.StatusOK {
				t.Errorf("a known key: %d %s", a.status, a.body)
			}
			if status, said := l.readiness(); status != http.StatusOK {
				t.Errorf("it is %d %s", status, said)
			}
			if len(l.log.lines(t, map[string]any{"level": "WARN", "part": "token"})) != 1 {
				t.Errorf("it should have said so once:\n%s", l.log)
			}
		})
	}
}

// received waits until something comes.
func received(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	timer := time.NewTimer(hang)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
		t.Fatalf("%s: not within %v", what, hang)
	}
}

// An emptied set is no rubbish: it shuts everybody out, and says so.
func TestEmptiedKeys(t *testing.T) {
	t.Parallel()
	l := openLodge(t)
	l.putKeys(`{"keys":[]}`)
	eventually(t, "everybody to be shut out", hang, func() error {
		if a := l.get("/v1/stock", l.keys.token(everything)); a.status == http.StatusOK {
			return errors.New(a.body)
		}
		return nil
	})
	if status, text := l.readiness(); status != http.StatusServiceUnavailable || !strings.Contains(text, "empty") {
		t.Errorf("it is %d %s", status, text)
	}
	l.putKeys(jwksOf(l.keys))
	eventually(t, "the keys to be back", hang, func() error {
		if a := l.get("/v1/stock", l.keys.token(everything)); a.status != http.StatusOK {
			return errors.New(a.body)
		}
		return nil
	})
}

// A file that is damaged is told of by the readiness, and the keys before it stay.
func TestRubbishInTheFileOfKeys(t *testing.T) {
	t.Parallel()
	l := openLodge(t)
	warned := func(want bool) {
		t.Helper()
		eventually(t, "the warning", hang, func() error {
			status, said := l.readiness()
			if status != http.StatusOK {
				t.Fatalf("it is %d %s", status, said)
			}
			if strings.Contains(said, "warnings") != want {
				return errors.New(said)
			}
			return nil
		})
		if a := l.get("/v1/stock", l.keys.token(everything)); a.status != http.StatusOK {
			t.Errorf("a known key: %d %s", a.status, a.body)
		}
	}
	warned(false)
	l.putKeys("rubbish")
	warned(true)
	l.putKeys(jwksOf(l.keys))
	warned(false)
	if err := os.Remove(l.config.JWKS); err != nil {
		t.Fatal(err)
	}
	warned(true)
}
