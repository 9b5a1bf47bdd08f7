package clustertest_test

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
)

// TestOwnerKilled: kill -9 of the node that decides costs time, and nothing else.
func TestOwnerKilled(t *testing.T) {
	r := clustertest.Start(t, shardsAsked())
	options := []clustertest.ShopOption{clustertest.Expiring(), shopSeed()}
	if *shards == 1 {
		// The account reads a basket's effect in one log; TestOrdersOverShardsSurviveKills
		// is for several.
		options = append(options, clustertest.Baskets())
	}
	shop := r.Shop(options...)
	for i := range *kills {
		shop.AwaitSuccesses(100)
		owner := r.Owner(i % *shards)
		shop.Mark("kill %d (%s)", i+1, owner)
		owner.Kill()
		shop.AwaitSuccesses(100)
		owner.Start()
		r.AwaitReady()
	}
	report := shop.Stop()
	t.Log(report)
	t.Logf("outages: p50 %v, p99 %v, longest %v", report.Gap(0.5), report.Gap(0.99), report.Gap(1))
	report.NothingFailed()
	report.Paused(2*time.Second, 3*time.Second)
	report.Account()
}
