package server

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// joined is a list as its flag takes it: comma-separated, in quotes where need be.
func joined(items []string) (string, error) {
	if len(items) == 0 {
		return "", nil
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.Write(items); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}

// ShowOptions writes the options as a file that --config takes, each with where it comes
// from. With changed, those are left out that have their default.
func ShowOptions(f *pflag.FlagSet, o Origins, changed bool) string {
	var b strings.Builder
	group := ""
	f.VisitAll(func(flag *pflag.Flag) {
		title, origin := Group(flag), o[flag.Name]
		if title == "" || changed && origin == "" {
			return
		}
		if group != title {
			group = title
			fmt.Fprintf(&b, "# %s\n", group)
		}
		line, silent := showOption(flag, origin)
		if silent {
			line = "# " + line
		}
		if origin == "" {
			origin = "default"
		}
		fmt.Fprintf(&b, "%-48s # %s\n", line, origin)
	})
	return b.String()
}

// showOption is an option's line. A silent one is for the eye only: giving it would be
// refused, or would mean more than its value.
func showOption(flag *pflag.Flag, origin string) (line string, silent bool) {
	value := flag.Value
	n, isNoticed := value.(noticed)
	if isNoticed {
		value = n.Value
	}
	shown := value.String()
	switch value.Type() {
	case "string":
		kind, _ := pflag.UnquoteUsage(flag)
		shown, silent = withoutSecret(shown, strings.HasPrefix(kind, "URL"))
		shown = strconv.Quote(shown) // as YAML reads it, too
	case "stringSlice":
		items := slices.Clone(value.(pflag.SliceValue).GetSlice())
		for i := range items {
			items[i] = strconv.Quote(items[i])
		}
		shown = "[" + strings.Join(items, ", ") + "]"
	case "duration":
		shown = shortDuration(shown)
	}
	return flag.Name + ": " + shown, silent || flag.Name == "config" || isNoticed && origin == ""
}

// withoutSecret takes out of a URL what may be a password: keys can come from one that
// has it in its query. What is left of a URL that can't be read is its scheme: the
// password may be the reason. asked is set where the option wants a URL.
func withoutSecret(s string, asked bool) (shown string, hidden bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		if hidden = botchedURL(s, asked); hidden {
			s = schemeOnly(s)
		}
		return s, hidden
	}
	cut := u.User != nil || u.RawQuery != "" || u.Fragment != ""
	if (cut || asked) && strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return schemeOnly(s), true // the password has a / ? or #, so that Host is a part of it
	}
	if cut {
		u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
		s = u.String()
	}
	return s, cut
}

// botchedURL reports whether what has no host may be meant as a URL with a secret. Names of
// files and of people, as issuers of tokens have them, are none.
func botchedURL(s string, asked bool) bool {
	isPath := strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") || strings.HasPrefix(s, ".")
	return strings.Contains(s, "://") || asked && !isPath && strings.ContainsAny(s, "@?#")
}

// schemeOnly leaves nothing of a URL that could be more than its scheme.
func schemeOnly(s string) string {
	switch scheme, _, _ := strings.Cut(s, "://"); scheme {
	case "http", "https", "ws", "wss":
		return scheme + "://..."
	}
	return "..."
}
