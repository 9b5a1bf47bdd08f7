package main

import "context"

const (
	withoutTokens  = "without-tokens"
	grantsRatioMin = 0.95
)

// compareGrants sells on a node whose clients have tokens of restricted grants, and on
// one that asks nobody, by turns.
func (r *round) compareGrants(ctx context.Context, gen *generator) error {
	plain := *r.options
	plain.grants = false
	return r.compareSides(ctx, gen, &plain, comparison{
		labels: [2]string{"with tokens", "without"}, plain: withoutTokens, ratio: "grants_ratio", least: grantsRatioMin,
	})
}
