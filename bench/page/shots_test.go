package page

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browser starts a Chromium, where there is one.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on PATH (Debian: chromium)")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Skipf("chromium does not start: %v", err)
	}
	return ctx
}

// look is what a script finds out about the page as it is shown.
type look struct {
	Overflow int     `json:"overflow"` // how much wider than the window
	Charts   int     `json:"charts"`
	Flat     int     `json:"flat"` // charts without a size
	Clipped  int     `json:"clipped"`
	Light    float64 `json:"light"` // of the background, 0 to 255
	Readout  string  `json:"readout"`
	Injected bool    `json:"injected"`
}

const looking = `(() => {
  const charts = [...document.querySelectorAll("details[open] svg, section > figure svg")];
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll(".x span, .y span, .mark, .tiles .value, .flags span")].filter((e) => {
    const b = e.getBoundingClientRect();
    return b.width > 0 && (b.left < 0 || b.right > wide);
  });
  const plot = document.querySelector(".draw"), box = plot && plot.getBoundingClientRect();
  if (plot) plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 9 }));
  const readout = plot ? document.querySelector(".readout").textContent : "";
  if (plot) plot.dispatchEvent(new PointerEvent("pointerleave", {}));
  return {
    overflow: document.documentElement.scrollWidth - wide,
    charts: charts.length,
    flat: charts.filter((c) => c.getBoundingClientRect().height < 40 || c.getBoundingClientRect().width < 120).length,
    clipped: out.length,
    light: Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]),
    readout,
    injected: document.images.length > 0,
  };
})()`

func TestPageInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	dir := cmp.Or(*shots, t.TempDir())
	ctx := browser(t)
	console := chromedp.Console(ctx)
	for name, runs := range map[string][]Run{"one": {sampleFailover()}, "all": sampleRuns()} {
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, []byte(render(t, runs...)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, wide := range []int64{390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				shot := fmt.Sprintf("%s-%d-%s", name, wide, scheme)
				check(t, shot, open(ctx, t, file, wide, scheme), scheme)
				if *shots != "" || shot == "all-390-dark" {
					picture(ctx, t, filepath.Join(dir, shot+".png"))
				}
			}
		}
	}
	const end = "that was all"
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`console.log("`+end+`")`)); err != nil {
		t.Fatal(err)
	}
	for m, err := range console {
		if err != nil {
			t.Fatal(err)
		}
		if m.Text == end {
			break
		}
		t.Errorf("the browser says: %v", m)
	}
}

// open opens a page in a window of some width and looks at it.
func open(ctx context.Context, t *testing.T, file string, wide int64, scheme string) look {
	t.Helper()
	media := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
		return err
	})
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(wide, 844), media, chromedp.Navigate("file://"+file)); err != nil {
		t.Fatal(err)
	}
	l, err := chromedp.Run(ctx, chromedp.Evaluate[look](looking))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func picture(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, png, 0o600); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, shot string, l look, scheme string) {
	t.Helper()
	if l.Overflow > 0 {
		t.Errorf("%s: %d pixels wider than the window", shot, l.Overflow)
	}
	if l.Charts == 0 || l.Flat > 0 {
		t.Errorf("%s: %d of %d charts have no size", shot, l.Flat, l.Charts)
	}
	if l.Clipped > 0 {
		t.Errorf("%s: %d texts are out of the window", shot, l.Clipped)
	}
	if dark := l.Light < 60; dark != (scheme == "dark") {
		t.Errorf("%s: a background of %v", shot, l.Light)
	}
	if l.Readout == "" || l.Readout == "over time" {
		t.Errorf("%s: nothing is read out under the pointer: %q", shot, l.Readout)
	}
	if l.Injected {
		t.Errorf("%s: a text has become an image", shot)
	}
}
