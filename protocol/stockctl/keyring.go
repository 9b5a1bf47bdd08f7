package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const keyBytes = 32 // AES-256, HMAC-SHA256

// keyring is the keys of a file: the first one is used, all are accepted.
type keyring [][]byte

// keyringKind is what a keyring is for.
type keyringKind struct {
	use, short string
	does       string // what a node does with the first key, then with the others
	flag       string // of the node that loads it
	file       string // in examples
	whose      string // who gets a copy
}

var (
	gossipKeyring = keyringKind{
		use: "gossip-key", short: "Make or rotate the key that gossip is encrypted with",
		does: "encrypts with the first and accepts messages under any of them",
		flag: "--gossip-key", file: "certs/gossip.key", whose: "All nodes, of all linked regions,",
	}
	linkKeyring = keyringKind{
		use: "link-secret", short: "Make or rotate the key that the passwords of links between regions come from",
		does: "calls another region with a password made from the first and accepts one from any of them",
		flag: "--link-secret", file: "certs/link.key", whose: "All nodes of all regions",
	}
)

type keyringFlags struct {
	out                         string
	add, promote, retire, force bool
}

func (a *app) keyringCommand(kind keyringKind) *cobra.Command {
	var f keyringFlags
	command := "stockctl certs " + kind.use + " --out "
	cmd := &cobra.Command{
		Use: kind.use, Short: kind.short, Args: cobra.NoArgs,
		Long: `Make a keyring for the nodes' ` + kind.flag + `: a text file of 32-byte keys in base64, one a
line. A node
` + kind.does + `.
` + kind.whose + ` get the same file, whose key is as secret as a password.
Without --out the key is printed.

A rotation has three steps, so that every node accepts a key before any uses it. Run each
step once, copy FILE to every node and let all of them load it, and only then go on:

  1. ` + command + `FILE --add       a new key at the end: accepted
  2. ` + command + `FILE --promote   the last key becomes first: used
  3. ` + command + `FILE --retire    all but the first are removed

Each step prints a fingerprint of the key in use, to compare files by. --promote once too
often takes the old key back into use, which is harmless until --retire.`,
		Example: "  " + command + kind.file + "\n  " + command + kind.file + " --add",
		RunE:    func(*cobra.Command, []string) error { return a.makeKeyring(kind, &f) },
	}
	cmd.Flags().StringVar(&f.out, "out", "", "the keyring `FILE` (default: print a key)")
	cmd.Flags().BoolVar(&f.add, "add", false, "step 1: append a new key to FILE")
	cmd.Flags().BoolVar(&f.promote, "promote", false, "step 2: move FILE's last key to the front")
	cmd.Flags().BoolVar(&f.retire, "retire", false, "step 3: remove all of FILE's keys but the first")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace FILE, where no step is given")
	cmd.MarkFlagsMutuallyExclusive("add", "promote", "retire", "force")
	return cmd
}

func (a *app) makeKeyring(kind keyringKind, f *keyringFlags) error {
	rotates := f.add || f.promote || f.retire
	switch {
	case f.out == "" && (rotates || f.force):
		return errors.New("--add, --promote, --retire and --force need --out FILE")
	case f.out == "":
		return a.printKey(newKey())
	case rotates:
		return a.rotateKeyring(f)
	}
	if err := refuseExisting(f.force, f.out); err != nil {
		return fmt.Errorf("%w, --add adds a key to it", err)
	}
	return a.saveKeyring(f.out, keyring{newKey()}, "Start every node with a copy of it: "+kind.flag+" "+shellWord(f.out))
}

func (a *app) printKey(key []byte) error {
	text := base64.StdEncoding.EncodeToString(key)
	if a.json {
		return printJSON(a.out, map[string]string{"key": text})
	}
	fmt.Fprintln(a.out, text)
	return nil
}

func (a *app) rotateKeyring(f *keyringFlags) error {
	keys, err := readKeyring(f.out)
	if err != nil {
		return err
	}
	var next string
	switch {
	case f.add:
		keys, next = keys.add(newKey()), "Copy it to every node; once all have loaded it: --promote"
	case f.promote:
		keys, err = keys.promote()
		next = "Copy it to every node; once all have loaded it: --retire"
	default:
		keys, next = keys.retire(), "Copy it to every node; the rotation ends when all have loaded it"
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.out, err)
	}
	return a.saveKeyring(f.out, keys, next)
}

func (a *app) saveKeyring(file string, keys keyring, next string) error {
	if err := writeWhole(file, keys.text(), 0o600); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, struct {
			File  string `json:"file"`
			Keys  int    `json:"keys"`
			InUse string `json:"in_use"`
		}{file, len(keys), fingerprint(keys[0])})
	}
	fmt.Fprintf(a.out, "%s: keys %d, in use %s\n%s\n", file, len(keys), fingerprint(keys[0]), next)
	return nil
}

func newKey() []byte {
	key := make([]byte, keyBytes)
	rand.Read(key)
	return key
}

// add puts a key where all nodes accept it and none uses it.
func (k keyring) add(key []byte) keyring { return append(slices.Clone(k), key) }

// promote takes the last key into use; the others are still accepted.
func (k keyring) promote() (keyring, error) {
	if len(k) < 2 {
		return nil, errors.New("there is one key only; --add another first")
	}
	last := len(k) - 1
	return append(keyring{k[last]}, k[:last]...), nil
}

// retire leaves the key in use.
func (k keyring) retire() keyring { return k[:1] }

func (k keyring) text() []byte {
	var b []byte
	for _, key := range k {
		b = base64.StdEncoding.AppendEncode(b, key)
		b = append(b, '\n')
	}
	return b
}

// readKeyring never quotes a line in its errors: it may be a key.
func readKeyring(file string) (keyring, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	var keys keyring
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("%s, line %d: not a key of %d bytes in base64", file, i+1, keyBytes)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key", file)
	}
	return keys, nil
}

// fingerprint names a key without giving it away.
func fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return fmt.Sprintf("%x", sum[:4])
}
