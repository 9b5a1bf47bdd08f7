package token

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the guard's figures.
type metrics struct {
	tokens *prometheus.CounterVec
}

// newMetrics registers them; those of the keys only where there are any to keep.
func newMetrics(r prometheus.Registerer, k *keeper) *metrics {
	m := &metrics{tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_tokens_total", Help: "Tokens checked, by result (ok, or the check that failed).",
	}, []string{"result"})}
	r.MustRegister(m.tokens)
	m.tokens.WithLabelValues("ok") // a rate needs to have seen zero
	if k == nil {
		return m
	}
	r.MustRegister(k.refreshes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stockmesh_jwks_age_seconds",
		Help: "Time since the keys that check tokens were last read well (+Inf: never).",
	}, func() float64 {
		if set := k.current.Load(); set != nil {
			return k.now().Sub(set.at).Seconds()
		}
		return math.Inf(1)
	}))
	return m
}

func (m *metrics) count(refused *refusal) {
	result := "ok"
	if refused != nil {
		result = refused.result
	}
	m.tokens.WithLabelValues(result).Inc()
}

// newRefreshes counts readings of the source. It is apart from the others because the
// keeper reads before there is a guard.
func newRefreshes() *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_jwks_refreshes_total",
		Help: "Readings of the keys that check tokens, by result (ok, unchanged, failed).",
	}, []string{"result"})
	for _, result := range []string{"ok", "unchanged", "failed"} {
		v.WithLabelValues(result)
	}
	return v
}
