package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// throttledLog is a log without times.
func throttledLog(burst int) (*throttle, *slog.Logger, *bytes.Buffer) {
	var out bytes.Buffer
	t := newThrottle(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}), burst)
	return t, t.logger(), &out
}

// droppedLines is the metric, by level.
func droppedLines(t *testing.T, throttle *throttle) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(throttle.dropped)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "stockmesh_log_lines_dropped_total" {
		t.Fatalf("%v, %v", families, err)
	}
	found := make(map[string]float64)
	for _, m := range families[0].GetMetric() {
		found[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	return found
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle, log, out := throttledLog(2)
		edge := log.With("part", "edge").WithGroup("g")
		for i := range 5 {
			log.Warn("full", "i", i)
			edge.Warn("full", "i", i) // the same kind of line
			log.Error("full", "i", i) // another one
			log.Info("audit", "i", i)
		}
		log.Debug("unseen")
		time.Sleep(throttleWindow)
		synctest.Wait()
		log.Warn("full", "i", 9)
		want := `level=WARN msg=full i=0
level=WARN msg=full part=edge g.i=0
level=ERROR msg=full i=0
level=INFO msg=audit i=0
level=ERROR msg=full i=1
level=INFO msg=audit i=1
level=INFO msg=audit i=2
level=INFO msg=audit i=3
level=INFO msg=audit i=4
level=WARN msg="8 lines like it were left out" message=full
level=ERROR msg="3 lines like it were left out" message=full
level=WARN msg=full i=9
`
		got := out.String()
		// Both summaries are due at the same moment.
		got = strings.Replace(got, "level=ERROR msg=\"3 lines like it were left out\" message=full\nlevel=WARN msg=\"8 lines like it were left out\" message=full\n",
			"level=WARN msg=\"8 lines like it were left out\" message=full\nlevel=ERROR msg=\"3 lines like it were left out\" message=full\n", 1)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[string]float64{"debug": 0, "info": 0, "warn": 8, "error": 3}, droppedLines(t, throttle)); d != "" {
			t.Error(d)
		}
	})
}

// A line now and then is never left out, however long.
func TestThrottleLetsTheSlowPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, log, out := throttledLog(2)
		for range 20 {
			log.Info("tick")
			time.Sleep(throttleWindow / 2)
		}
		if n := strings.Count(out.String(), "msg=tick\n"); n != 20 {
			t.Errorf("%d lines:\n%s", n, out)
		}
	})
}

// At the end of the program nothing stays untold, and nothing is told twice.
func TestThrottleFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle, log, out := throttledLog(1)
		log.Info("a")
		log.Info("a")
		throttle.flush()
		throttle.flush()
		time.Sleep(2 * throttleWindow)
		synctest.Wait()
		if want := "level=INFO msg=a\nlevel=INFO msg=\"1 lines like it were left out\" message=a\n"; out.String() != want {
			t.Errorf("got\n%s", out)
		}
	})
}

func TestThrottleOff(t *testing.T) {
	for _, burst := range []int{0, -1} {
		_, log, out := throttledLog(burst)
		for range 100 {
			log.Info("a")
		}
		if n := strings.Count(out.String(), "msg=a"); n != 100 {
			t.Errorf("--log-burst %d: %d lines", burst, n)
		}
	}
}

// Messages that differ each time take no more room than there is, and are forgotten.
func TestThrottleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle, log, out := throttledLog(3)
		for i := range 2 * throttleKindsMax {
			log.Info(fmt.Sprint("message ", i))
		}
		if n := len(throttle.kinds); n != throttleKindsMax+1 {
			t.Errorf("%d kinds", n)
		}
		time.Sleep(throttleWindow)
		synctest.Wait()
		if want := fmt.Sprintf("msg=\"%d lines like it were left out\"\n", throttleKindsMax-3); !strings.HasSuffix(out.String(), want) {
			t.Errorf("no %q at the end", want)
		}
		time.Sleep(throttleWindow)
		log.Info("one more")
		if n := len(throttle.kinds); n != 1 || !strings.HasSuffix(out.String(), "msg=\"one more\"\n") {
			t.Errorf("%d kinds after all have been quiet", n)
		}
	})
}

func TestThrottleCostsNothing(t *testing.T) {
	throttle, _, _ := throttledLog(1 << 30)
	n := testing.AllocsPerRun(100, func() {
		if !throttle.admit(slog.LevelWarn, "full") {
			t.Fatal("left out")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLogHandler(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"m","err":"e"}`, "text": " ERR m err=e"} {
		var out bytes.Buffer
		h, err := newLogHandler(&out, format, "error")
		if err != nil {
			t.Fatal(err)
		}
		slog.New(h).Warn("unseen")
		slog.New(h).Error("m", "err", errors.New("e"))
		if got := strings.TrimSpace(out.String()); !strings.HasSuffix(got, want) || strings.Contains(got, "unseen") {
			t.Errorf("%s: %q", format, got)
		}
	}
}
