package helm_test

import "strings"

// drill is what an alert is held against: scenes at whose end it fires, once and on what
// is named, and scenes in which it never does. Figures lie within a factor of two of the
// thresholds on either side, so that a threshold that was changed by accident is noticed.
type drill struct {
	alert string
	fires []firing
	quiet []string
}

type firing struct {
	on    string // labels, as "instance=eu-0 job=eu"; all of them but namespace and pod
	scene string
}

// saw is a backlog that is never empty and is worked off all the same.
var saw = strings.Repeat("10 500 ", 25)

func drills() []drill {
	return append(append(servingDrills(), commandDrills()...), append(meshDrills(), edgeDrills()...)...)
}

func servingDrills() []drill {
	return []drill{
		{"StockmeshNoQuorum",
			[]firing{{"job=eu", `
				eu-0 stockmesh_state{state="no_quorum"} 0x3 1x3
				eu-0 stockmesh_ready 1x3 0x3
				eu-1 stockmesh_state{state="no_quorum"} 0x7
				eu-1 stockmesh_ready 0x7`}},
			[]string{
				// One node is cut off from the two others.
				`eu-0 stockmesh_state{state="no_quorum"} 1x20
				eu-0 stockmesh_ready 0x20
				eu-1 stockmesh_state{state="no_quorum"} 0x20
				eu-1 stockmesh_ready 1x20`,
				// A fail-over that a scrape happened to see.
				`eu-0 stockmesh_state{state="no_quorum"} 0x5 1 0x5
				eu-0 stockmesh_ready 1x5 0 1x5`,
				// It isn't up for another reason.
				`eu-0 stockmesh_state{state="no_quorum"} 0x20
				eu-0 stockmesh_state{state="catching_up"} 1x20
				eu-0 stockmesh_ready 0x20`,
			}},
		{"StockmeshNotServing",
			[]firing{
				{"job=eu", `
				eu-0 stockmesh_ready 1x3 stale
				eu-0 up 1x3 0x6`},
				{"job=eu", `
				eu-0 stockmesh_ready 1x3 0x6
				eu-0 stockmesh_state{state="no_quorum"} 0x9
				eu-0 stockmesh_state{state="unhealthy"} 0x3 1x6`},
			},
			[]string{
				`eu-0 stockmesh_ready 0x20
				eu-1 stockmesh_ready 1x20`,
				// What lacks a quorum has an alert of its own.
				`eu-0 stockmesh_ready 0x20
				eu-0 stockmesh_state{state="no_quorum"} 1x20
				eu-1 stockmesh_ready 0x20
				eu-1 stockmesh_state{state="no_quorum"} 0x20`,
				// All three are started again at once.
				`eu-0 stockmesh_ready 1x5 0x2 1x5`,
			}},
		{"StockmeshNodeDown",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 up 1x2 0x11
				eu-0 stockmesh_ready 1x2 stale
				eu-1 up 1x13
				eu-1 stockmesh_ready 1x13`}},
			[]string{
				// Somebody else's target.
				`db-0 up 0x30`,
				// An upgrade.
				`eu-0 up 1x5 0x6 1x10
				eu-0 stockmesh_ready 1x5 stale 0x4 1x11`,
			}},
		{"StockmeshNodeMissing",
			[]firing{
				{"job=eu", `
				eu-0 stockmesh_region_nodes{kind="expected"} 3x25
				eu-0 stockmesh_region_nodes{kind="serving"} 3x3 2x22`},
				// It grows, and not all know yet.
				{"job=eu", `
				eu-0 stockmesh_region_nodes{kind="expected"} 5x25
				eu-0 stockmesh_region_nodes{kind="serving"} 3x25
				eu-1 stockmesh_region_nodes{kind="expected"} 3x25
				eu-1 stockmesh_region_nodes{kind="serving"} 3x25`},
			},
			[]string{
				// One that sees only itself is what is cut off.
				`eu-0 stockmesh_region_nodes{kind="expected"} 3x25
				eu-0 stockmesh_region_nodes{kind="serving"} 3x25
				eu-1 stockmesh_region_nodes{kind="expected"} 3x25
				eu-1 stockmesh_region_nodes{kind="serving"} 1x25`,
				`eu-0 stockmesh_region_nodes{kind="expected"} 3x40
				eu-0 stockmesh_region_nodes{kind="serving"} 3x5 2x15 3x10`,
			}},
		{"StockmeshNodeNotReady",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 stockmesh_ready 1x2 0x22
				eu-1 stockmesh_ready 1x24`}},
			[]string{
				`eu-0 stockmesh_ready 0x40
				eu-1 stockmesh_ready 0x40`,
				`eu-0 stockmesh_ready 1x2 0x15 1x10
				eu-1 stockmesh_ready 1x27`,
			}},
		{"StockmeshNodeRestarts",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 process_start_time_seconds 1 2 2 3 4 4 5
				eu-0 stockmesh_ready 0x6`}},
			[]string{
				`eu-0 process_start_time_seconds 1 2 2 3 4 4 4
				eu-0 stockmesh_ready 1x6`,
				`db-0 process_start_time_seconds 1 2 3 4 5 6 7`,
			}},
		{"StockmeshVersionsDiffer",
			[]firing{{"job=eu", `
				eu-0 stockmesh_build_info{version="1.4.0"} 1x250
				eu-1 stockmesh_build_info{version="1.5.0"} 1x250
				eu-2 stockmesh_build_info{version="1.5.0"} 1x250`}},
			[]string{
				`eu-0 stockmesh_build_info{version="1.4.0"} 1x250
				eu-1 stockmesh_build_info{version="1.4.0"} 1x250
				us-0 stockmesh_build_info{version="1.5.0"} 1x250`,
				// An upgrade of half an hour.
				`eu-0 stockmesh_build_info{version="1.4.0"} 1x60 stale
				eu-0 stockmesh_build_info{version="1.5.0"} _x60 1x240
				eu-1 stockmesh_build_info{version="1.5.0"} 1x300`,
			}},
		{"StockmeshAbsent",
			[]firing{{"", `eu-0 up 0x22`}},
			[]string{`eu-0 stockmesh_ready 0x22`}},
	}
}

func commandDrills() []drill {
	return []drill{
		{"StockmeshCommandsSlow",
			[]firing{{"job=eu", `
				eu-0 stockmesh_command_seconds_bucket{op="sell",le="1"} 0+98x25
				eu-0 stockmesh_command_seconds_bucket{op="sell",le="2.5"} 0+100x25
				eu-0 stockmesh_command_seconds_bucket{op="sell",le="+Inf"} 0+100x25`}},
			[]string{
				`eu-0 stockmesh_command_seconds_bucket{op="sell",le="0.5"} 0+90x25
				eu-0 stockmesh_command_seconds_bucket{op="sell",le="1"} 0+100x25
				eu-0 stockmesh_command_seconds_bucket{op="sell",le="+Inf"} 0+100x25`,
			}},
		{"StockmeshCommandsFail",
			[]firing{{"job=eu", `
				eu-0 stockmesh_commands_failed_total{code="unavailable"} 0+1.5x15
				eu-0 stockmesh_command_seconds_count{op="sell"} 0+100x15`}},
			[]string{
				`eu-0 stockmesh_commands_failed_total{code="overloaded"} 0+0.7x15
				eu-0 stockmesh_command_seconds_count{op="sell"} 0+100x15`,
				// Refused because of the client, or of another region.
				`eu-0 stockmesh_commands_failed_total{code="rate_limited"} 0+50x15
				eu-0 stockmesh_commands_failed_total{code="region_unreachable"} 0+50x15
				eu-0 stockmesh_command_seconds_count{op="sell"} 0+100x15`,
			}},
		{"StockmeshCommitSlow",
			[]firing{{"job=eu", `
				eu-0 stockmesh_commit_seconds_bucket{le="0.1024"} 0+98x35
				eu-0 stockmesh_commit_seconds_bucket{le="0.2048"} 0+100x35
				eu-0 stockmesh_commit_seconds_bucket{le="+Inf"} 0+100x35`}},
			[]string{
				`eu-0 stockmesh_commit_seconds_bucket{le="0.0512"} 0+90x35
				eu-0 stockmesh_commit_seconds_bucket{le="0.1024"} 0+100x35
				eu-0 stockmesh_commit_seconds_bucket{le="+Inf"} 0+100x35`,
			}},
		{"StockmeshCommitErrors",
			[]firing{{"job=eu", `eu-0 stockmesh_commit_errors_total 0+1.5x30`}},
			[]string{`eu-0 stockmesh_commit_errors_total 0+0.8x30`}},
		{"StockmeshLeaderChanges",
			[]firing{{"job=eu", `
				eu-0 stockmesh_leader_changes_total 0+0.3x35
				eu-0 stockmesh_owned_shards 1x35
				eu-1 stockmesh_leader_changes_total 0x35
				eu-1 stockmesh_owned_shards 0x35`}},
			[]string{
				// A rolling upgrade of two shards.
				`eu-0 stockmesh_leader_changes_total 0+0.3x35
				eu-0 stockmesh_owned_shards 1x35
				eu-1 stockmesh_owned_shards 1x35`,
				`eu-0 stockmesh_leader_changes_total 0+0.15x35
				eu-0 stockmesh_owned_shards 0x35`,
			}},
		{"StockmeshNodeBehind",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_behind_rounds 400x12`}},
			[]string{`eu-0 stockmesh_behind_rounds 200x12`, `eu-0 stockmesh_behind_rounds 4000x5 0x5 4000x5`}},
		{"StockmeshRowsUnwritten",
			[]firing{
				{"instance=eu-0 job=eu", `
				eu-0 stockmesh_dirty_rows 5+10x35
				eu-0 stockmesh_flush_errors_total 0x35`},
				{"instance=eu-0 job=eu", `
				eu-0 stockmesh_dirty_rows 1x35
				eu-0 stockmesh_flush_errors_total 0x35`},
				{"instance=eu-0 job=eu", `
				eu-0 stockmesh_dirty_rows 0x45
				eu-0 stockmesh_flush_errors_total 0+1.5x45`},
			},
			[]string{
				`eu-0 stockmesh_dirty_rows ` + saw,
				`eu-0 stockmesh_dirty_rows 0x45`,
				`eu-0 stockmesh_flush_errors_total 0+0.8x45`,
			}},
		{"StockmeshDiskFilling",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_disk_used_ratio 0.7x35`}},
			[]string{`eu-0 stockmesh_disk_used_ratio 0.6x35`}},
		{"StockmeshDiskFillsSoon",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_disk_used_ratio 0.5+0.00042x200`}},
			[]string{
				`eu-0 stockmesh_disk_used_ratio 0.5+0.00001x200`,
				// Within twelve hours.
				`eu-0 stockmesh_disk_used_ratio 0.58+0.0002x200`,
				// The first import, into an empty disk.
				`eu-0 stockmesh_disk_used_ratio 0.2+0.001x150`,
				// That is no forecast any more.
				`eu-0 stockmesh_disk_used_ratio 0.82+0.0005x150`,
			}},
		{"StockmeshDiskHigh",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_disk_used_ratio 0.85x5`}},
			[]string{`eu-0 stockmesh_disk_used_ratio 0.7x5`}},
		{"StockmeshDiskFull",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_disk_used_ratio 0.97x3`}},
			[]string{`eu-0 stockmesh_disk_used_ratio 0.9x3`}},
	}
}
