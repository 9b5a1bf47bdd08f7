package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make keys and tokens, and read tokens", Args: cobra.NoArgs,
		Long: `Make what clients prove themselves with: a key that signs tokens, the public keys that
nodes check them with (--jwks), and tokens. Nothing here talks to a node.

Meant for development and for shops without an identity provider of their own.`,
		Example: `  stockctl token key --out keys
  stockctl token mint --key keys/key.pem --subject till-7 --grant watch,sell:locations=store-12 --out till-7.token
  stockctl --token-file till-7.token sell mug=1 -l store-12
  stockctl token show till-7.token`,
		// Without it a mistyped subcommand would print the help and succeed.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenKeyCommand(), a.tokenDropKeyCommand(), a.tokenMintCommand(), a.tokenShowCommand())
	return cmd
}

func (a *app) tokenShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show [FILE]", Short: "Print what a token says, without checking it", Args: cobra.MaximumNArgs(1),
		Long: `Print what a token says: of FILE, or of the input. Nothing is checked, neither the
signature nor who issued it: anybody can write a token that says anything. The token
itself is not printed.`,
		Example: "  stockctl token show till-7.token\n  stockctl token show --json < till-7.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) > 0 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return a.showToken(interruptible(cmd.Context(), in))
		},
	}
}

func (a *app) showToken(in io.Reader) error {
	token, err := readToken(in)
	if err != nil {
		return err
	}
	t, err := parseUnverified(token)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, struct {
			Verified bool         `json:"verified"`
			Header   protocol.Raw `json:"header"`
			Claims   protocol.Raw `json:"claims"`
		}{false, t.header, t.claims})
	}
	return t.print(a.out, time.Now())
}

// unverified is a token as it stands there.
type unverified struct{ header, claims protocol.Raw }

func parseUnverified(token string) (t unverified, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return t, errors.New("no JWT: it has three parts, with dots between them")
	}
	for i, part := range []*protocol.Raw{&t.header, &t.claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			*part = text
			err = protocol.UnmarshalJSON(text, &map[string]any{})
		}
		if err != nil {
			// What a decoder says would quote parts of it.
			return t, fmt.Errorf("no JWT: its part %d is no JSON object in base64url", i+1)
		}
	}
	return t, nil
}

// shownClaims are those that nodes look at.
type shownClaims struct {
	Issuer    any              `json:"iss"`
	Audience  any              `json:"aud"`
	Subject   any              `json:"sub"`
	ID        any              `json:"jti"`
	IssuedAt  float64          `json:"iat"`
	NotBefore float64          `json:"nbf"`
	ExpiresAt float64          `json:"exp"`
	Grants    []protocol.Grant `json:"grants"`
}

func (t *unverified) print(w io.Writer, now time.Time) error {
	var h struct {
		Algorithm any `json:"alg"`
		Key       any `json:"kid"`
	}
	var c shownClaims
	if err := errors.Join(protocol.UnmarshalJSON(t.header, &h), protocol.UnmarshalJSON(t.claims, &c)); err != nil {
		return errors.New("its claims have types that no node takes; --json prints them as they are")
	}
	fmt.Fprintln(w, "NOT VERIFIED: anybody could have written this")
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range []struct{ name, value string }{
		{"algorithm", shown(h.Algorithm)}, {"key id", shown(h.Key)},
		{"subject", shown(c.Subject)}, {"token id", shown(c.ID)}, {"issuer", shown(c.Issuer)}, {"audience", shown(c.Audience)},
		{"issued at", moment(c.IssuedAt)}, {"not before", moment(c.NotBefore)}, {"expires at", moment(c.ExpiresAt) + lifeLeft(c.ExpiresAt, now)},
	} {
		fmt.Fprintf(out, "%s\t%s\n", line.name, line.value)
	}
	if len(c.Grants) == 0 {
		fmt.Fprintln(out, "grants\tnone: it allows nothing")
	}
	for _, g := range c.Grants {
		fmt.Fprintf(out, "grant\t%s\n", grantText(&g))
	}
	return out.Flush()
}

// shown is text of somebody else's, which may hold what moves a terminal's cursor.
func shown(v any) string {
	s, isText := v.(string)
	if !isText && v != nil {
		s = string(protocol.AppendJSON(nil, v))
	}
	if s == "" {
		return "-"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// secondsMax is the end of the year 9999.
const secondsMax = 253402300799

func moment(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds < 0 || seconds > secondsMax:
		return "no time"
	}
	return timeText(protocol.TimeOf(time.Unix(int64(seconds), 0)))
}

func lifeLeft(expires float64, now time.Time) string {
	if expires <= 0 || expires > secondsMax {
		return ""
	}
	left := time.Unix(int64(expires), 0).Sub(now).Round(time.Second)
	if left <= 0 {
		return " (expired)"
	}
	return fmt.Sprintf(" (in %v)", left)
}

func grantText(g *protocol.Grant) string {
	var b strings.Builder
	b.WriteString(list(g.Do))
	for _, f := range []struct {
		name   string
		values []string
	}{{"skus", g.SKUs}, {"locations", g.Locations}, {"regions", g.Regions}, {"users", g.Users}} {
		if f.values != nil {
			fmt.Fprintf(&b, " %s=%s", f.name, list(f.values))
		}
	}
	return b.String()
}

func list[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = shown(string(v))
	}
	if len(texts) == 0 {
		return "(none)"
	}
	return strings.Join(texts, ",")
}
