package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	subjectBytesMax = 256
	// certificatePrefix begins the subjects of client certificates: no token may have one.
	certificatePrefix = "cert:"
)

// mintFlags are what a token is to say.
type mintFlags struct {
	key, subject, issuer, audience, id string
	ttl                                time.Duration
	grants                             []string
	grantsFile, out                    string
}

func (a *app) tokenMintCommand() *cobra.Command {
	var f mintFlags
	cmd := &cobra.Command{
		Use: "mint", Short: "Make a token, signed with a key of yours", Args: cobra.NoArgs,
		Long: `Make a token that allows what its grants say, and print it, or write it to a file that only
its owner may read (--out). What a grant leaves out it doesn't limit.

  --grant RIGHTS[:skus=LIST][:locations=LIST][:regions=LIST][:users=LIST]

RIGHTS and each LIST are joined by commas; a SKU that ends with * stands for all that
begin so. Rights: ` + strings.Join(rightNames(), ", ") + `.
Names that hold : or , go into a file instead, as JSON (--grants):

  [{"do":["watch","reserve"],"skus":["tee-*"],"locations":["store-12"],"regions":["eu"],"users":["u1"]}]

A token can't be taken back but by "stockctl revoke", so let it be a short one. Write the
next one to the same --out in time: clients that were given the file, stockctl too, take
it from there without a break.`,
		Example: `  stockctl token mint --key keys/key.pem --subject ada --grant watch
  stockctl token mint --key keys/key.pem --subject till-7 --ttl 12h --grant watch,sell:locations=store-12 --grant 'reserve:skus=tee-*,cap:users=u1'
  stockctl token mint --key keys/key.pem --subject shop --grants shop.json --issuer https://id.example.com --audience stockmesh --out shop.token`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("id") {
				f.id = uuid.NewString()
			}
			return a.mint(&f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "`FILE` of the key to sign with")
	flags.StringVar(&f.subject, "subject", "", "who the token is for, as the history shows it")
	flags.StringVar(&f.issuer, "issuer", "", "what nodes want as --jwt-issuer")
	flags.StringVar(&f.audience, "audience", "", "what nodes want as --jwt-audience")
	flags.DurationVar(&f.ttl, "ttl", time.Hour, "how long the token is valid")
	flags.StringVar(&f.id, "id", "", "the token's id, to revoke it by (default: a new one)")
	flags.StringArrayVar(&f.grants, "grant", nil, "what it allows, repeated for more")
	flags.StringVar(&f.grantsFile, "grants", "", "JSON `FILE` of grants, added to those of --grant")
	flags.StringVar(&f.out, "out", "", "`FILE` to write the token to, replaced whole if it is there (default: print it)")
	cmd.MarkFlagRequired("key")
	cmd.MarkFlagRequired("subject")
	return cmd
}

func rightNames() (names []string) {
	for _, r := range protocol.Rights() {
		names = append(names, string(r))
	}
	return names
}

func (a *app) mint(f *mintFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	grants, err := f.readGrants()
	if err != nil {
		return err
	}
	key, err := readTokenKey(f.key)
	if err != nil {
		return err
	}
	now := time.Now()
	claims := f.claims(now, grants)
	unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	unsigned.Header["kid"] = keyID(key)
	token, err := unsigned.SignedString(key)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if len(token) > tokenBytesMax {
		return fmt.Errorf("the token has %d bytes, nodes take %d: give it fewer names, or prefixes", len(token), tokenBytesMax)
	}
	if len(grants) == 0 {
		fmt.Fprintln(a.errOut, "warning: a token without grants allows nothing")
	}
	return a.printToken(f, token, protocol.TimeOf(now.Add(f.ttl)))
}

func (a *app) printToken(f *mintFlags, token string, expires protocol.Time) error {
	if f.out != "" {
		if err := writeWhole(f.out, []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	switch {
	case a.json:
		if f.out != "" {
			token = ""
		}
		return printJSON(a.out, struct {
			Token   string        `json:"token,omitzero"`
			File    string        `json:"file,omitzero"`
			ID      string        `json:"id,omitzero"`
			Subject string        `json:"subject"`
			Expires protocol.Time `json:"expires_at"`
		}{token, f.out, f.id, f.subject, expires})
	case f.out != "":
		_, err := fmt.Fprintf(a.out, "%s: token %s of %s, valid until %s\n", f.out, shown(f.id), f.subject, timeText(expires))
		return err
	}
	_, err := fmt.Fprintln(a.out, token)
	return err
}

func (f *mintFlags) check() error {
	if err := checkSubject("--subject", f.subject); err != nil {
		return err
	}
	if strings.HasPrefix(f.subject, certificatePrefix) {
		return fmt.Errorf("--subject: %q begins the subjects of certificates", certificatePrefix)
	}
	if f.id != "" {
		if err := checkSubject("--id", f.id); err != nil {
			return err
		}
	}
	if f.ttl < time.Second {
		return fmt.Errorf("--ttl must be at least 1s, not %v", f.ttl)
	}
	return nil
}

// checkSubject holds what nodes want of a subject and of a token's id.
func checkSubject(flag, s string) error {
	if s == "" || len(s) > subjectBytesMax || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%s must be 1 to %d bytes of UTF-8 without control characters", flag, subjectBytesMax)
	}
	return nil
}

func (f *mintFlags) claims(now time.Time, grants []protocol.Grant) jwt.MapClaims {
	claims := jwt.MapClaims{"sub": f.subject, "iat": now.Unix(), "exp": now.Add(f.ttl).Unix()}
	if len(grants) > 0 {
		claims["grants"] = grants
	}
	for name, value := range map[string]string{"iss": f.issuer, "aud": f.audience, "jti": f.id} {
		if value != "" {
			claims[name] = value
		}
	}
	return claims
}

func (f *mintFlags) readGrants() (grants []protocol.Grant, err error) {
	for _, text := range f.grants {
		g, err := parseGrant(text)
		if err != nil {
			return nil, fmt.Errorf("--grant %q: %w", text, err)
		}
		grants = append(grants, g)
	}
	if f.grantsFile == "" {
		return grants, nil
	}
	in, err := os.Open(f.grantsFile)
	if err != nil {
		return nil, fmt.Errorf("--grants: %w", err)
	}
	defer in.Close()
	more, err := decodeGrants(in)
	if err != nil {
		return nil, fmt.Errorf("--grants %s: %w", f.grantsFile, err)
	}
	return append(grants, more...), nil
}

// parseGrant reads watch,reserve:skus=tee-*,cap:locations=store-12:regions=eu:users=u1.
func parseGrant(text string) (g protocol.Grant, err error) {
	fields := strings.Split(text, ":")
	for right := range strings.SplitSeq(fields[0], ",") {
		g.Do = append(g.Do, protocol.Right(right))
	}
	lists := map[string]*[]string{"skus": &g.SKUs, "locations": &g.Locations, "regions": &g.Regions, "users": &g.Users}
	for _, field := range fields[1:] {
		name, values, ok := strings.Cut(field, "=")
		list := lists[name]
		switch {
		case !ok || list == nil:
			return g, fmt.Errorf("%q: want skus=, locations=, regions= or users= (names that hold : go into --grants)", field)
		case *list != nil:
			return g, fmt.Errorf("%s= stands there twice", name)
		}
		*list = strings.Split(values, ",")
	}
	return g, checkGrant(&g)
}

// decodeGrants refuses what it doesn't know: a mistyped list would be no limit.
func decodeGrants(r io.Reader) (grants []protocol.Grant, err error) {
	text, err := io.ReadAll(io.LimitReader(r, tokenBytesMax))
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&grants); err != nil {
		return nil, fmt.Errorf("want a JSON array of grants: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the array of grants")
	}
	for i := range grants {
		if err := checkGrant(&grants[i]); err != nil {
			return nil, fmt.Errorf("grant %d: %w", i+1, err)
		}
	}
	return grants, nil
}

func checkGrant(g *protocol.Grant) error {
	for _, right := range g.Do {
		if !slices.Contains(protocol.Rights(), right) {
			return fmt.Errorf("no right is named %q; there are %s", right, strings.Join(rightNames(), ", "))
		}
	}
	if len(g.Do) == 0 {
		return errors.New("it names no right")
	}
	for name, values := range map[string][]string{"skus": g.SKUs, "locations": g.Locations, "regions": g.Regions, "users": g.Users} {
		if values != nil && len(values) == 0 || slices.Contains(values, "") {
			return fmt.Errorf("%s has an empty name, or none: it would allow nothing", name)
		}
	}
	return checkGrantNames(g)
}

func checkGrantNames(g *protocol.Grant) error {
	for _, region := range g.Regions {
		if e := protocol.CheckRegion("region", region); e != nil {
			return fmt.Errorf("%s, not %q", e.Message, region)
		}
	}
	for field, names := range map[string][]string{"sku": g.SKUs, "location": g.Locations} {
		for _, name := range names {
			if e := protocol.CheckName(field, name); e != nil {
				return fmt.Errorf("%s, not %q", e.Message, name)
			}
		}
	}
	return nil
}
