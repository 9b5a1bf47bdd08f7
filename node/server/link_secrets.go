package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// linkSecretBytes is a key's length. That it is fixed also shows most files that are
	// half written.
	linkSecretBytes        = 32
	linkSecretFileBytesMax = 64 << 10

	// linkSecretCheckEvery is the least time between two looks at the file.
	linkSecretCheckEvery = time.Second
)

// linkSecrets is the keyring of the links' passwords, read again when its file changes,
// so that a key is rolled without a restart.
type linkSecrets struct {
	file   string
	logger *slog.Logger

	mu      sync.Mutex
	secrets []string
	checked time.Time
	failed  string // last error, to log each once
}

// newLinkSecrets reads the file; a node doesn't start with one it can't read.
func newLinkSecrets(file string, logger *slog.Logger) (*linkSecrets, error) {
	secrets, err := readLinkSecrets(file)
	if err != nil {
		return nil, err
	}
	return &linkSecrets{file: file, logger: logger, secrets: secrets, checked: time.Now()}, nil
}

// current returns the newest keys, the one that signs first. A file that can't be used
// leaves the old ones standing. The whole file is read each time: it is tiny, and neither
// its time nor its size must change for the keys in it to.
func (l *linkSecrets) current() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.checked) < linkSecretCheckEvery {
		return l.secrets
	}
	l.checked = time.Now()
	secrets, err := readLinkSecrets(l.file)
	if err != nil {
		if err.Error() != l.failed {
			l.failed = err.Error()
			l.logger.Error("new link secrets can't be used; the old ones stay", "error", err)
		}
		return l.secrets
	}
	l.failed = ""
	if !slices.Equal(secrets, l.secrets) {
		l.secrets = secrets
		l.logger.Info("link secrets read again", "file", l.file, "keys", len(secrets))
	}
	return l.secrets
}

// readLinkSecrets returns the keys in order. Its errors never quote the file.
func readLinkSecrets(file string) (secrets []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("link secret: %w", err)
		}
	}()
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, linkSecretFileBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(text) > linkSecretFileBytesMax {
		return nil, fmt.Errorf("%s has more than %d bytes", file, linkSecretFileBytesMax)
	}
	if secrets, err = parseLinkSecrets(string(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return secrets, nil
}

func parseLinkSecrets(text string) (secrets []string, err error) {
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != linkSecretBytes {
			return nil, fmt.Errorf("line %d is no key of %d bytes in base64", n, linkSecretBytes)
		}
		if !slices.Contains(secrets, string(key)) {
			secrets = append(secrets, string(key))
		}
	}
	if len(secrets) == 0 {
		return nil, errors.New("no key in it")
	}
	return secrets, nil
}
