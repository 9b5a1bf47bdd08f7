package server

import (
	"errors"
	"fmt"
)

// rateMax keeps the time between two commands well above the clock's nanosecond.
const rateMax = 10_000_000

// checkLimits is for what is allowed per address, connection and user.
func (c *Config) checkLimits() (errs []error) {
	for _, f := range []struct {
		flag  string
		value int
	}{
		{"--rate-limit", c.RateLimit},
		{"--rate-limit-per-connection", c.RateLimitPerConnection},
		{"--rate-limit-per-user", c.RateLimitPerUser},
		{"--rate-burst", c.RateBurst},
		{"--max-connections-per-user", c.MaxConnectionsPerUser},
		{"--max-subscriptions-per-user", c.MaxSubscriptionsPerUser},
	} {
		if f.value < 0 || f.value > rateMax {
			errs = append(errs, fmt.Errorf("%s %d: want 0 to %d", f.flag, f.value, rateMax))
		}
	}
	if c.RateBurst > 0 && c.RateLimit == 0 && c.RateLimitPerConnection == 0 && c.RateLimitPerUser == 0 {
		errs = append(errs, errors.New("--rate-burst needs --rate-limit, --rate-limit-per-connection or --rate-limit-per-user"))
	}
	if c.JWKS == "" && c.limitsUsers() {
		errs = append(errs, errors.New("limits per user need --jwks: without tokens nobody is known"))
	}
	return errs
}

// limitsUsers reports whether anything is counted by user.
func (c *Config) limitsUsers() bool {
	return c.RateLimitPerUser > 0 || c.MaxConnectionsPerUser > 0 || c.MaxSubscriptionsPerUser > 0
}
