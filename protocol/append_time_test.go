package protocol

import (
	"testing"
	"time"
)

// Every day of 400 years, after which the calendar repeats itself, some of the
// years of four digits after that, and the borders around them.
func TestAppendTimeAgreesWithPackageTime(t *testing.T) {
	check := func(at Time) {
		t.Helper()
		want := at.Std().Format(`"` + timeLayout + `"`)
		if got := string(appendTime(nil, at)); got != want {
			t.Fatalf("%d: got %s, want %s", at, got, want)
		}
	}
	const day = Time(24 * time.Hour / time.Millisecond)
	last := TimeOf(time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC))
	for at := Time(0); at <= last; at += day {
		if at > 146097*day {
			at += 96 * day
		}
		check(at)
		check(at + at/day%day) // another time of day each time
	}
	for _, at := range []Time{-1, -day, 1, 999, 1000, day - 1, last - 1, last, last + 1, last + day} {
		check(at)
	}
}
