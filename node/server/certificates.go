package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificates is the public port's TLS material, read again when its files
// change, so that a certificate is rolled without a restart.
type certificates struct {
	certFile, keyFile, caFile string
	logger                    *slog.Logger

	mu      sync.Mutex
	config  *tls.Config
	stamp   string // of the files that config was made of
	checked time.Time
}

// certificateCheckEvery is the least time between two looks at the files.
const certificateCheckEvery = time.Second

// newCertificates reads the files; a node doesn't start with ones it can't read.
func newCertificates(certFile, keyFile, caFile string, logger *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, caFile: caFile, logger: logger}
	stamp, err := c.look()
	if err != nil {
		return nil, err
	}
	if c.config, err = c.read(); err != nil {
		return nil, err
	}
	c.stamp, c.checked = stamp, time.Now()
	return c, nil
}

// tlsConfig is the configuration for a listener; each handshake takes the newest.
func (c *certificates) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil },
	}
}

// current returns the newest configuration. Files that can't be read, as in the
// middle of a change, leave the old one standing.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < certificateCheckEvery {
		return c.config
	}
	c.checked = time.Now()
	stamp, err := c.look()
	if err == nil && stamp == c.stamp {
		return c.config
	}
	var config *tls.Config
	if err == nil {
		config, err = c.read()
	}
	if err != nil {
		c.logger.Error("new TLS certificates can't be used; the old ones stay", "error", err)
		return c.config
	}
	c.config, c.stamp = config, stamp
	c.logger.Info("TLS certificates read again", "cert", c.certFile)
	return c.config
}

// look tells whether the files have changed since.
func (c *certificates) look() (stamp string, err error) {
	for _, name := range []string{c.certFile, c.keyFile, c.caFile} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return "", fmt.Errorf("TLS: %w", err)
		}
		stamp += fmt.Sprintf("%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	return stamp, nil
}

func (c *certificates) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s: %w", c.certFile, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"http/1.1"}, // a WebSocket handshake is HTTP/1.1
	}
	if c.caFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.caFile)
	if err != nil {
		return nil, fmt.Errorf("TLS client CA: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.Join(fmt.Errorf("TLS client CA %s", c.caFile), errors.New("no certificate in it"))
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}
