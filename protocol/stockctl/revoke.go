package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

// How long a revocation is kept where nothing else is said: longer than what it is of
// should live. Tokens are short as a rule, certificates are not.
const (
	revokeTokens       = 30 * 24 * time.Hour
	revokeCertificates = 10 * 365 * 24 * time.Hour
)

// revocation is both what POST /revocations is sent and what GET lists.
type revocation struct {
	TokenID string        `json:"token_id,omitzero"`
	Subject string        `json:"subject,omitzero"`
	Before  protocol.Time `json:"before"`
	Until   protocol.Time `json:"until"`
}

func (a *app) revokeCommand() *cobra.Command {
	var r revocation
	var before, until string
	cmd := &cobra.Command{
		Use: "revoke", Short: "Take a token or a certificate back, or all tokens of a subject", Args: cobra.NoArgs,
		Long: `Take a token back by its id, or all that a subject was given before now. All nodes of all
regions hear of it; connections that came with such a token are closed within 5 s. Any
node can be asked, at its admin port. There is no way back: make a new token.

--subject refuses tokens issued before --before, and those that don't say when they were
issued. A certificate is revoked as its token id, which "stockctl certs client" prints
(cert: and the serial number), or as subject cert:NAME.

A revocation is kept until --until, a time or a duration from now, and then forgotten:
a token that lives longer would be good again. Unless it is given: 30 days, for
certificates (cert:) 10 years.`,
		Example: `  stockctl revoke --token-id 0f3c0d8e-7a54-4b57-9a2c-6a1f6c3d2b10
  stockctl revoke --subject ada --until 2160h
  stockctl revoke --subject cert:POS-7
  stockctl revoke --subject ada --before 2026-07-01T12:00:00Z`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			now := time.Now()
			if err := r.complete(now, before, until); err != nil {
				return err
			}
			if err := a.operate(cmd.Context(), http.MethodPost, "/revocations", r, &struct{}{}); err != nil {
				return err
			}
			return a.printRevoked(&r)
		},
	}
	cmd.Flags().StringVar(&r.TokenID, "token-id", "", "the id of a token (jti), or of a certificate (cert:SERIAL)")
	cmd.Flags().StringVar(&r.Subject, "subject", "", "whose tokens")
	cmd.Flags().StringVar(&before, "before", "", "`TIME`: with --subject, tokens issued before it (default: now)")
	cmd.Flags().StringVar(&until, "until", "", "`TIME` or duration: how long it is kept, at least as long as the token would live (default: 720h, for cert: 87600h)")
	cmd.MarkFlagsMutuallyExclusive("token-id", "subject")
	cmd.MarkFlagsOneRequired("token-id", "subject")
	a.adminFlag(cmd.Flags())
	return cmd
}

// complete checks the flags and fills in what was left out.
func (r *revocation) complete(now time.Time, before, until string) error {
	flag, name := "--token-id", r.TokenID
	if r.TokenID == "" {
		flag, name = "--subject", r.Subject
	}
	if err := checkSubject(flag, name); err != nil {
		return err
	}
	keep := revokeTokens
	if strings.HasPrefix(name, certificatePrefix) {
		keep = revokeCertificates
	}
	from, err := parseWhen("--before", before, now, now)
	if err != nil {
		return err
	}
	to, err := parseWhen("--until", until, now, now.Add(keep))
	if err != nil {
		return err
	}
	if !to.After(now) {
		return errors.New("--until is over already")
	}
	r.Before, r.Until = protocol.TimeOf(from), protocol.TimeOf(to)
	return nil
}

// parseWhen reads a time, or a duration from now.
func parseWhen(flag, s string, now, fallback time.Time) (time.Time, error) {
	if s == "" {
		return fallback, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%s: want a time such as 2026-07-01T12:00:00Z or a duration such as 48h, not %q", flag, s)
	}
	return t, nil
}

func (a *app) printRevoked(r *revocation) error {
	if a.json {
		return printJSON(a.out, *r)
	}
	what := "token " + shown(r.TokenID)
	if r.TokenID == "" {
		what = fmt.Sprintf("tokens of %s issued before %s", shown(r.Subject), timeText(r.Before))
	}
	_, err := fmt.Fprintf(a.out, "Revoked: %s.\nKept until %s; what lives longer would be good again then (--until).\n", what, timeText(r.Until))
	return err
}

func (a *app) revocationsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revocations", Short: "Show what was revoked", Args: cobra.NoArgs,
		Long: `Show the revocations that a node knows: those that still count. Any node can be asked, at
its admin port.`,
		Example: "  stockctl revocations\n  stockctl revocations --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var answer struct {
				Revocations []revocation `json:"revocations"`
			}
			if err := a.operate(cmd.Context(), http.MethodGet, "/revocations", nil, &answer); err != nil {
				return err
			}
			list := answer.Revocations
			slices.SortStableFunc(list, func(a, b revocation) int { return int(a.Until - b.Until) })
			if a.json {
				return printJSON(a.out, list...)
			}
			return revocationTable(a.out, list)
		},
	}
	a.adminFlag(cmd.Flags())
	return cmd
}

func revocationTable(w io.Writer, list []revocation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOKEN ID\tSUBJECT\tISSUED BEFORE\tKEPT UNTIL")
	for _, r := range list {
		before := timeText(r.Before)
		if r.Subject == "" {
			before = "-" // a token's id says which
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", shown(r.TokenID), shown(r.Subject), before, timeText(r.Until))
	}
	return t.Flush()
}
