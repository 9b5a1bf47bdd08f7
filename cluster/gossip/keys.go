package gossip

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"
)

const keyFileBytesMax = 64 << 10

// keyFile keeps a keyring equal to a file.
type keyFile struct {
	path string
	ring *memberlist.Keyring

	installed []byte // content the ring stands for
	seen      []byte // content at the last look
	failed    string // last error, to log each once
}

func openKeyFile(path string) (*keyFile, error) {
	content, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, err
	}
	return &keyFile{path: path, ring: ring, installed: content, seen: content}, nil
}

// CheckKeyFile says what is wrong with a keyring file. Its error never quotes it.
func CheckKeyFile(path string) error {
	_, err := openKeyFile(path)
	return err
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, keyFileBytesMax+1))
	if err == nil && len(content) > keyFileBytesMax {
		err = fmt.Errorf("%s: more than %d bytes", path, keyFileBytesMax)
	}
	return content, err
}

// parseKeys returns the keys in order. Its errors never quote the file.
func parseKeys(content []byte) (keys [][]byte, err error) {
	for i, line := range strings.Split(string(content), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("line %d is not base64", i+1)
		}
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if !contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it")
	}
	return keys, nil
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// look installs the file's keys when they have changed. A file that can't be
// used leaves the ring as it is. The whole file is read each time: it is tiny,
// and neither its time nor its size must change for the keys in it to.
func (k *keyFile) look(log *slog.Logger) {
	content, err := readKeyFile(k.path)
	if err != nil {
		k.complain(log, err)
		return
	}
	// Not before it was the same twice: this look may have met a half written file.
	settled := bytes.Equal(content, k.seen)
	k.seen = content
	if !settled {
		return
	}
	if bytes.Equal(content, k.installed) {
		k.failed = ""
		return
	}
	keys, err := parseKeys(content)
	if err == nil {
		err = install(k.ring, keys)
	}
	if err != nil {
		k.complain(log, err)
		return
	}
	k.installed, k.failed = content, ""
	log.Info("gossip: keys changed", "file", k.path, "keys", len(keys))
}

func (k *keyFile) complain(log *slog.Logger, err error) {
	if err.Error() == k.failed {
		return
	}
	k.failed = err.Error()
	log.Error("gossip: key file can't be used, the old keys stay", "file", k.path, "err", err)
}

// install makes the ring hold keys, the first one as primary. The old keys go
// last, so that at no time a message can't be read which could be before and after.
func install(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return err
	}
	if err := staleLast(ring, keys); err != nil {
		return err
	}
	have := ring.GetKeys()
	for i := len(have) - 1; i >= len(keys); i-- {
		if err := ring.RemoveKey(have[i]); err != nil {
			return err
		}
	}
	return nil
}

// staleLast brings the ring's keys that are not in keys to its end. RemoveKey
// shifts what is behind the removed key in place, under the eyes of those who
// decrypt; at the end there is nothing to shift. The ring is reordered only by
// making a key primary, so each is for a moment; a ring that was rotated one key
// at a time is in order already.
func staleLast(ring *memberlist.Keyring, keys [][]byte) error {
	have := ring.GetKeys()
	if !slices.ContainsFunc(have[:len(keys)], func(k []byte) bool { return !contains(keys, k) }) {
		return nil
	}
	for _, key := range slices.Backward(keys) {
		if err := ring.UseKey(key); err != nil {
			return err
		}
	}
	return nil
}
