package api

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedLog is what was logged.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(l.b.String(), "\n"), "\n")
	l.b.Reset()
	return lines
}

func TestRefusedWritesAreLogged(t *testing.T) {
	log := new(lockedLog)
	f, g := guarded(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	g.give("clerk", `[{"do":["watch","sell"],"skus":["mine"]}]`)
	long := strings.Repeat("k", 500)
	f.do("POST", "/v1/sales", `{"key":"k1","lines":[{"sku":"mine","quantity":1}]}`, bearing("clerk")) // no stock: not for who asks
	f.do("POST", "/v1/sales", `{"key":"k2","lines":[{"sku":"theirs","quantity":1}]}`, bearing("clerk"))
	f.do("POST", "/v1/batch", `[{"op":"adjust","key":"k3","sku":"mine","delta":1}]`, bearing("clerk"))
	f.do("POST", "/v1/sales", `{}`, bearing("s3cret"), "Idempotency-Key: "+long)
	f.do("POST", "/v1/batch", `[]`, bearing("s3cret"))
	f.do("GET", "/v1/mesh", "", bearing("clerk"))
	f.do("GET", "/v1/stock/theirs", "", bearing("clerk"))
	var got []string
	for _, line := range log.take() {
		_, line, _ = strings.Cut(line, `msg="audit: refused" `)
		got = append(got, line)
	}
	want := []string{
		`subject=sub-clerk address=192.0.2.1 op=sell key=k2 code=forbidden`,
		`subject=sub-clerk address=192.0.2.1 op=adjust key=k3 code=forbidden`,
		`subject="" address=192.0.2.1 op=sell key=` + long[:128] + ` code=unauthorized`,
		`subject="" address=192.0.2.1 op="POST /v1/batch" key="" code=unauthorized`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAuditIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lockedLog)
		a := &audit{log: slog.New(slog.NewTextHandler(log, nil))}
		for range 25 {
			a.refused("s", "a", "sell", "k", "forbidden")
		}
		if n := len(log.take()); n != auditsPerSecond {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Second)
		a.refused("s", "a", "sell", "k", "forbidden")
		a.refused("s", "a", "sell", "k", "forbidden")
		if lines := log.take(); !strings.Contains(lines[0], "left_out=15") || strings.Contains(lines[1], "left_out") {
			t.Error(lines)
		}
	})
}
