package protocol

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestParseVector(t *testing.T) {
	for _, s := range []string{"", "eu:1", "eu:12,us:4", "a:18446744073709551615", "a:1,a-1:1", "0:7", "eu:1,eu.1:2,eu.10:3,eu.2:4"} {
		if v, err := ParseVector(s); err != nil || v.String() != s {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"eu", "eu:", ":1", "eu:0", "eu:01", "eu:+1", "eu:-1", "eu: 1", "eu:1 ", "eu:1,", ",eu:1", "eu:1,eu:1", "us:1,eu:1", "a-1:1,a:1",
		"EU:1", "eu:1x", "eu:18446744073709551616", "eu:1,,us:1", "eu:1;us:1", "é:1", "eu:1_0",
		"eu.0:1", "eu.:1", "eu.01:1", "eu.x:1", "eu.1.1:1", ".1:1", "eu.65536:1"} {
		if v, err := ParseVector(s); err == nil {
			t.Errorf("%q was taken as %v", s, v)
		}
	}
}

func vectors() *rapid.Generator[Vector] {
	return rapid.Custom(func(t *rapid.T) Vector {
		var v Vector
		for _, region := range []string{"ap", "eu", "eu-2", "us"} {
			if n := rapid.Uint64Range(0, 3).Draw(t, region); n > 0 {
				v = append(v, Component{region, n})
			}
		}
		return v
	})
}

func TestVectorLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w, x := vectors().Draw(t, "v"), vectors().Draw(t, "w"), vectors().Draw(t, "x")
		if p, err := ParseVector(v.String()); err != nil || !slices.Equal(p, v) {
			t.Fatalf("%s reads as %v, %v", v, p, err)
		}
		if (v.String() == w.String()) != slices.Equal(v, w) {
			t.Fatalf("%s and %s: equal strings, other vectors", v, w)
		}
		if !v.AtLeast(v) || !v.AtLeast(nil) {
			t.Fatalf("%s is not at least itself and nothing", v)
		}
		if v.AtLeast(w) && w.AtLeast(v) && !slices.Equal(v, w) {
			t.Fatalf("%s and %s are at least each other", v, w)
		}
		if v.AtLeast(w) && w.AtLeast(x) && !v.AtLeast(x) {
			t.Fatalf("%s >= %s >= %s", v, w, x)
		}
	})
}

func TestVectorWith(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := vectors().Draw(t, "v")
		before := slices.Clone(v)
		region := rapid.SampledFrom([]string{"a", "ap", "eu", "eu-1", "us", "zz"}).Draw(t, "region")
		n := v.Get(region) + rapid.Uint64Range(1, 5).Draw(t, "n")
		w := v.With(region, n)
		if !slices.Equal(v, before) {
			t.Fatalf("With changed its vector from %s to %s", before, v)
		}
		if w.Get(region) != n || !w.AtLeast(v) || v.AtLeast(w) {
			t.Fatalf("%s with %s:%d is %s", v, region, n, w)
		}
		if _, err := ParseVector(w.String()); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzVector: what is accepted is written back byte by byte.
func FuzzVector(f *testing.F) {
	for _, s := range []string{"", "eu:1", "eu:12,us:4", "us:1,eu:1", "eu:0", "eu:18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVector(s)
		if err == nil && v.String() != s {
			t.Fatalf("%q is written back as %q", s, v)
		}
	})
}
