package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Origins tells by flag name where options' values come from: "flag", a variable of the
// environment, or file:line. What isn't in it has its default.
type Origins map[string]string

// flagOrigin is the origin of what was given on the command line.
const flagOrigin = "flag"

// ReadOptions completes the flags that Bind made, once they were parsed: what was not
// given on the command line comes from the environment, and what isn't there either from
// the file that --config names. environ is in the form of os.Environ. The error joins
// everything that is wrong; what is not has been set nevertheless.
func ReadOptions(f *pflag.FlagSet, environ []string) (Origins, error) {
	o := make(Origins)
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed {
			o[flag.Name] = flagOrigin
		}
	})
	return o, errors.Join(o.readEnvironment(f, environ), o.readFile(f))
}

// set gives a flag its value, unless something above it did.
func (o Origins) set(f *pflag.FlagSet, name, value, origin string) error {
	if o[name] != "" {
		return nil
	}
	if err := f.Set(name, value); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	o[name] = origin
	return nil
}

// nearest returns ", did you mean X?" for the known name most like one that isn't, ""
// where none is.
func nearest(name string, known []string) string {
	best, least := "", 1+max(2, len(name)/4)
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is how many letters must be changed, put in or left out to make a of b. Case
// and the kind of dash count for nothing.
func distance(a, b string) int {
	plain := strings.NewReplacer("_", "-", " ", "-")
	a, b = plain.Replace(strings.ToLower(a)), plain.Replace(strings.ToLower(b))
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			other := 1
			if a[i] == b[j] {
				other = 0
			}
			row[j+1] = min(above[j]+other, above[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
