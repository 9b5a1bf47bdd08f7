package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

const keySetFile = "jwks.json"

func (a *app) tokenKeyCommand() *cobra.Command {
	var dir string
	var add, force bool
	cmd := &cobra.Command{
		Use: "key", Short: "Make a key that signs tokens", Args: cobra.NoArgs,
		Long: `Write DIR/key.pem, an Ed25519 key that signs tokens, and DIR/jwks.json, the public keys that
every node is given (--jwks). Whoever has key.pem can make tokens that allow everything:
no node needs it and none should hold it.

To roll the key without a refused command:

  1. stockctl token key --out DIR --add   a new key beside the old: DIR/key-2.pem, and
     jwks.json with both. Give it to all nodes; they read it again when it changes.
  2. When all have it, sign with the new key: stockctl token mint --key DIR/key-2.pem
  3. When the last token of the old key has ended:
     stockctl token drop-key KID --out DIR, and give jwks.json to all nodes again.`,
		Example: "  stockctl token key --out keys\n  stockctl token key --out keys --add",
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return errors.New("--out is empty")
			}
			return a.makeTokenKey(dir, add, force)
		},
	}
	cmd.Flags().StringVar(&dir, "out", "", "`DIR` to write to; made if missing")
	cmd.Flags().BoolVar(&add, "add", false, "keep the keys that are there; the new one gets the next free name")
	cmd.Flags().BoolVar(&force, "force", false, "replace key.pem and jwks.json: tokens signed with the keys in it are refused from then on")
	cmd.MarkFlagsMutuallyExclusive("add", "force")
	cmd.MarkFlagRequired("out")
	return cmd
}

// madeKey says where a key was put.
type madeKey struct {
	KeyID string `json:"kid"`
	Key   string `json:"key"`
	JWKS  string `json:"jwks"`
	Keys  int    `json:"keys"` // in jwks.json
}

func (a *app) makeTokenKey(dir string, add, force bool) error {
	made := madeKey{Key: filepath.Join(dir, "key.pem"), JWKS: filepath.Join(dir, keySetFile)}
	var set keySet
	var err error
	if add {
		if set, err = readKeySet(made.JWKS); err != nil {
			return err
		}
		if made.Key, err = freeName(dir); err != nil {
			return err
		}
	} else if err = refuseExisting(force, made.JWKS, made.Key); err != nil {
		return fmt.Errorf("%w, --add adds a key to it", err)
	}
	key, err := newTokenKey()
	if err != nil {
		return err
	}
	made.KeyID = keyID(key)
	set.Keys = append(set.Keys, publicJWK(key))
	made.Keys = len(set.Keys)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	// The key first: one that is published is there.
	if err := writeWhole(made.Key, pemText("PRIVATE KEY", der), 0o600); err != nil {
		return err
	}
	if err := set.write(made.JWKS); err != nil {
		return err
	}
	return a.printTokenKey(&made, add)
}

func (a *app) printTokenKey(m *madeKey, added bool) error {
	if a.json {
		return printJSON(a.out, *m)
	}
	fmt.Fprintf(a.out, "Key %s:\n  %s  signs tokens; keep it off the nodes\n  %s  for every node: --jwks; keys in it: %d\n\n", m.KeyID, m.Key, m.JWKS, m.Keys)
	next := "Next, a token:"
	if added {
		next = "Once all nodes have " + shellWord(m.JWKS) + ", sign with the new key:"
	}
	_, err := fmt.Fprintf(a.out, "%s\n  stockctl token mint --key %s --subject NAME --grant watch,reserve\n", next, shellWord(m.Key))
	return err
}

// freeName is the first of key.pem, key-2.pem, ... that isn't there.
func freeName(dir string) (string, error) {
	for i := 1; ; i++ {
		name := "key.pem"
		if i > 1 {
			name = fmt.Sprintf("key-%d.pem", i)
		}
		file := filepath.Join(dir, name)
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			return file, nil
		} else if err != nil {
			return "", err
		}
	}
}

func (a *app) tokenDropKeyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "drop-key KID", Short: "Take a public key out of jwks.json", Args: cobra.ExactArgs(1),
		Long: `Take a public key out of DIR/jwks.json: the last step of rolling keys, or the first after
one was stolen. Tokens signed with it are refused as soon as nodes have the new file, and
connections that came with them are closed when these tokens end or are revoked.`,
		Example: "  stockctl token drop-key 3hSv0dVCv4pQz0m2b8vQ1n8bJw7T0k0Jx2o1n4xW0aY --out keys",
		RunE: func(_ *cobra.Command, args []string) error {
			return a.dropKey(filepath.Join(dir, keySetFile), args[0])
		},
	}
	cmd.Flags().StringVar(&dir, "out", "", "`DIR` of jwks.json")
	cmd.MarkFlagRequired("out")
	return cmd
}

func (a *app) dropKey(file, id string) error {
	set, err := readKeySet(file)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(set.Keys), func(k protocol.Raw) bool { return publicKeyID(k) == id })
	switch {
	case len(left) == len(set.Keys):
		return fmt.Errorf("%s has no key %q; it has %s", file, id, strings.Join(set.ids(), ", "))
	case len(left) == 0:
		return fmt.Errorf("%s has no other key: nobody would be let in; add one first", file)
	}
	set.Keys = left
	if err := set.write(file); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, struct {
			Dropped string `json:"dropped"`
			JWKS    string `json:"jwks"`
			Keys    int    `json:"keys"`
		}{id, file, len(left)})
	}
	_, err = fmt.Fprintf(a.out, "%s: keys %d, without %s\nGive it to all nodes. Its private key is of no more use: delete it.\n", file, len(left), id)
	return err
}

// keySet is a JWKS (RFC 7517). Keys that others have put there stay as they are.
type keySet struct {
	Keys []protocol.Raw `json:"keys"`
}

func readKeySet(file string) (s keySet, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("no keys there yet: %w", err)
	}
	if err != nil {
		return s, err
	}
	if err := protocol.UnmarshalJSON(text, &s); err != nil {
		return s, fmt.Errorf("%s is no JWKS", file) // the reason might quote a key
	}
	for _, k := range s.Keys {
		var secret struct {
			D any `json:"d"` // of key pairs
			K any `json:"k"` // of symmetric keys
		}
		if protocol.UnmarshalJSON(k, &secret) != nil || secret.D != nil || secret.K != nil {
			return s, fmt.Errorf("%s holds a key that is not public: it must not go to nodes", file)
		}
	}
	return s, nil
}

func (s *keySet) write(file string) error {
	text := protocol.Raw(protocol.AppendJSON(nil, s))
	if err := text.Indent(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return writeWhole(file, append(text, '\n'), 0o644)
}

func (s *keySet) ids() (ids []string) {
	for _, k := range s.Keys {
		ids = append(ids, publicKeyID(k))
	}
	return ids
}

func publicKeyID(k protocol.Raw) string {
	var v struct {
		ID string `json:"kid"`
	}
	_ = protocol.UnmarshalJSON(k, &v) // one without a readable id has none
	return v.ID
}

// newTokenKey makes a key whose id can be given as an argument: a - in front would make
// a flag of it.
func newTokenKey() (ed25519.PrivateKey, error) {
	for {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		if !strings.HasPrefix(keyID(key), "-") {
			return key, nil
		}
	}
}

// keyID is the key's thumbprint (RFC 7638): the same wherever it is computed.
func keyID(key ed25519.PrivateKey) string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"Ed25519","kty":"OKP","x":"%s"}`, publicText(key)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func publicText(key ed25519.PrivateKey) string {
	return base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

func publicJWK(key ed25519.PrivateKey) protocol.Raw {
	return protocol.AppendJSON(nil, struct {
		Type  string `json:"kty"`
		Curve string `json:"crv"`
		X     string `json:"x"`
		ID    string `json:"kid"`
		Use   string `json:"use"`
		Alg   string `json:"alg"`
	}{"OKP", "Ed25519", publicText(key), keyID(key), "sig", "EdDSA"})
}

// readTokenKey never quotes what it reads in its errors.
func readTokenKey(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("--key: no PKCS #8 private key in PEM in %s", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("--key: %s can't be read as a PKCS #8 private key", file)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("--key: %s is no Ed25519 key, as `stockctl token key` makes them", file)
	}
	return private, nil
}
