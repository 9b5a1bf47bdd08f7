package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// allowance is an Allow that holds n commands.
func allowance(n int) func(*http.Request, int) (int, *protocol.Error) {
	return func(_ *http.Request, want int) (int, *protocol.Error) {
		allowed := min(want, n)
		n -= allowed
		if allowed < want {
			return allowed, protocol.RetryLater(protocol.CodeRateLimited, 1200, "slow down")
		}
		return allowed, nil
	}
}

func TestRateLimitedRequest(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Allow = allowance(2) })
	sale := `{"key":"k","sku":"A","delta":1}`
	if w := f.do("POST", "/v1/adjustments", sale); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if w := f.do("GET", "/v1/nothing", ""); w.Code != 404 {
		t.Fatal(w.Body) // costs one too
	}
	for _, r := range [][2]string{
		{"POST", "/v1/adjustments"}, {"GET", "/v1/stock/A"}, {"GET", "/v1/stream?sku=A"}, {"GET", "/v1/nothing"}, {"POST", "/v1/batch"},
	} {
		w := f.do(r[0], r[1], sale)
		p := wantCode(t, w, protocol.CodeRateLimited)
		if w.Header().Get("Retry-After") != "2" || p.RetryAfterMS != 1200 || !p.Retryable {
			t.Errorf("%s %s: %v %s", r[0], r[1], w.Header(), w.Body)
		}
	}
}

// A batch costs what it holds; what there is no budget for is refused one by one.
func TestRateLimitedBatch(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Allow = allowance(3) })
	commands := make([]string, 5)
	for i := range commands {
		commands[i] = `{"op":"adjust","id":` + string(rune('0'+i)) + `,"key":"` + string(rune('a'+i)) + `","sku":"A","delta":1}`
	}
	w := f.do("POST", "/v1/batch", "["+strings.Join(commands, ",")+"]")
	var got struct {
		Results []struct {
			ID    int             `json:"id"`
			Error *protocol.Error `json:"error"`
		} `json:"results"`
	}
	if err := protocol.UnmarshalJSON(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Results) != 5 {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	for i, r := range got.Results {
		limited := r.Error != nil && r.Error.Code == protocol.CodeRateLimited && r.Error.RetryAfterMS == 1200
		if r.ID != i || limited != (i >= 3) || !limited && r.Error != nil {
			t.Errorf("%d: %+v %v", i, r, r.Error)
		}
	}
	f.api.cfg.Allow = allowance(1)
	var read itemReply
	if err := protocol.UnmarshalJSON(f.do("GET", "/v1/stock/A", "").Body.Bytes(), &read); err != nil || read.Item.OnHand != 3 {
		t.Errorf("%d on hand: what was refused was done (%v)", read.Item.OnHand, err)
	}
}
