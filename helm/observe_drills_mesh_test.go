package helm_test

func meshDrills() []drill {
	return []drill{
		{"StockmeshRegionCutOff",
			[]firing{{"job=eu peer=us", `
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 0.1x3 20x5
				eu-1 stockmesh_peer_silence_seconds{peer="us"} 0.1x3 25x5
				eu-0 stockmesh_peer_silence_seconds{peer="asia"} 0.1x8`}},
			[]string{
				// One node's link.
				`eu-0 stockmesh_peer_silence_seconds{peer="us"} 600x10
				eu-1 stockmesh_peer_silence_seconds{peer="us"} 0.1x10`,
				`eu-0 stockmesh_peer_silence_seconds{peer="us"} 10x10`,
			}},
		{"StockmeshPeerLag",
			[]firing{
				{"instance=eu-0 job=eu peer=us", `
				eu-0 stockmesh_peer_lag_seconds{peer="us"} 15x15
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 10x15`},
				{"instance=eu-0 job=eu peer=us", `
				eu-0 stockmesh_peer_lag_seconds{peer="us"} 18x15
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 18x15
				eu-1 stockmesh_peer_lag_seconds{peer="us"} 0x15
				eu-1 stockmesh_peer_silence_seconds{peer="us"} 0.1x15`},
			},
			[]string{
				`eu-0 stockmesh_peer_lag_seconds{peer="us"} 7x15
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 0.1x15`,
				// Cut off, which is another alert.
				`eu-0 stockmesh_peer_lag_seconds{peer="us"} 20x15
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 20x15`,
			}},
		{"StockmeshMirrorStalled",
			[]firing{
				{"job=eu peer=us", `
				eu-0 stockmesh_mirror_behind_rows{peer="us"} 1x16
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 10x16`},
				{"job=eu peer=us", `
				eu-0 stockmesh_mirror_behind_rows{peer="us"} 5+100x16
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 0.1x16
				eu-1 stockmesh_mirror_behind_rows{peer="us"} 5+100x16
				eu-1 stockmesh_peer_silence_seconds{peer="us"} 20x16`},
			},
			[]string{
				`eu-0 stockmesh_mirror_behind_rows{peer="us"} 0x30
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 0.1x30`,
				`eu-0 stockmesh_mirror_behind_rows{peer="us"} ` + saw + `
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 0.1x50`,
				`eu-0 stockmesh_mirror_behind_rows{peer="us"} 7x30
				eu-0 stockmesh_peer_silence_seconds{peer="us"} 20x30`,
			}},
		{"StockmeshFalseRefusals",
			[]firing{{"job=eu", `
				eu-0 stockmesh_refused_elsewhere_total 0+0.5x60
				eu-0 stockmesh_commands_total{op="sell",code="ok"} 0+20x60
				eu-1 stockmesh_commands_total{op="reserve",code="ok"} 0+13x60
				eu-0 stockmesh_commands_total{op="adjust",code="ok"} 0+1000x60`}},
			[]string{
				`eu-0 stockmesh_refused_elsewhere_total 0+0.5x60
				eu-0 stockmesh_commands_total{op="sell",code="ok"} 0+71x60`,
				// At night.
				`eu-0 stockmesh_refused_elsewhere_total 0+0.2x60
				eu-0 stockmesh_commands_total{op="sell",code="ok"} 0+10x60`,
			}},
		{"StockmeshClockOffset",
			// Each sees the two others; the third is wrong, and sees all others wrong.
			[]firing{{"job=eu node=eu-2 region=eu", `
				eu-0 stockmesh_clock_offset_seconds{region="eu",node="eu-1"} 0.01x8
				eu-0 stockmesh_clock_offset_seconds{region="eu",node="eu-2"} -0.7x8
				eu-1 stockmesh_clock_offset_seconds{region="eu",node="eu-0"} -0.01x8
				eu-1 stockmesh_clock_offset_seconds{region="eu",node="eu-2"} -0.71x8
				eu-2 stockmesh_clock_offset_seconds{region="eu",node="eu-0"} 0.7x8
				eu-2 stockmesh_clock_offset_seconds{region="eu",node="eu-1"} 0.71x8`}},
			[]string{
				`eu-0 stockmesh_clock_offset_seconds{region="us",node="us-0"} 0.3x8`,
				// Paused for a moment.
				`eu-0 stockmesh_clock_offset_seconds{region="eu",node="eu-1"} 0x4 30x3 0x8`,
			}},
	}
}

func edgeDrills() []drill {
	return []drill{
		{"StockmeshLoopLag",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 stockmesh_loop_lag_seconds_bucket{le="0.1"} 0+98x35
				eu-0 stockmesh_loop_lag_seconds_bucket{le="0.25"} 0+100x35
				eu-0 stockmesh_loop_lag_seconds_bucket{le="+Inf"} 0+100x35
				eu-1 stockmesh_loop_lag_seconds_bucket{le="0.1"} 0+100x35
				eu-1 stockmesh_loop_lag_seconds_bucket{le="+Inf"} 0+100x35`}},
			[]string{
				`eu-0 stockmesh_loop_lag_seconds_bucket{le="0.05"} 0+90x35
				eu-0 stockmesh_loop_lag_seconds_bucket{le="0.1"} 0+100x35
				eu-0 stockmesh_loop_lag_seconds_bucket{le="+Inf"} 0+100x35`,
			}},
		{"StockmeshOutboxesFull",
			[]firing{
				{"instance=eu-0 job=eu", `
				eu-0 stockmesh_outbox_bytes_bucket{le="262144"} 0+97x35
				eu-0 stockmesh_outbox_bytes_bucket{le="+Inf"} 0+100x35
				eu-0 stockmesh_outbox_bytes_count 0+100x35`},
				// As OpenMetrics writes figures.
				{"instance=eu-0 job=eu", `
				eu-0 stockmesh_outbox_bytes_bucket{le="262144.0"} 0+97x35
				eu-0 stockmesh_outbox_bytes_count 0+100x35`},
			},
			[]string{
				`eu-0 stockmesh_outbox_bytes_bucket{le="262144"} 0+98.7x35
				eu-0 stockmesh_outbox_bytes_count 0+100x35`,
			}},
		{"StockmeshSlowReaders",
			[]firing{{"job=eu", `
				eu-0 stockmesh_sessions_closed_total{code="4100"} 0+0.95x35
				eu-0 stockmesh_sessions 400x35
				eu-1 stockmesh_sessions 600x35`}},
			[]string{
				`eu-0 stockmesh_sessions_closed_total{code="4100"} 0+0.6x35
				eu-0 stockmesh_sessions 1000x35`,
				`eu-0 stockmesh_sessions_closed_total{code="1001"} 0+30x35
				eu-0 stockmesh_sessions_closed_total{code="4100"} 0x35
				eu-0 stockmesh_sessions 1000x35`,
			}},
		{"StockmeshConnectionsRejected",
			[]firing{{"instance=eu-0 job=eu reason=files", `
				eu-0 stockmesh_connections_rejected_total{reason="files"} 0+4.5x25
				eu-0 stockmesh_connections_rejected_total{reason="connections"} 0x25`}},
			[]string{
				`eu-0 stockmesh_connections_rejected_total{reason="connections"} 0+2.1x25`,
				// Scanners.
				`eu-0 stockmesh_connections_rejected_total{reason="tls"} 0+100x25`,
				// A storm that passes.
				`eu-0 stockmesh_connections_rejected_total{reason="connections"} 0 300 300x25`,
			}},
		{"StockmeshConnectionsNearLimit",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 stockmesh_connections 900x12
				eu-0 stockmesh_connections_max 1000x12`}},
			[]string{
				`eu-0 stockmesh_connections 700x12
				eu-0 stockmesh_connections_max 1000x12`,
			}},
		{"StockmeshMemoryNearLimit",
			[]firing{{"instance=eu-0 job=eu", `
				eu-0 process_resident_memory_bytes 1200x12
				eu-0 go_gc_gomemlimit_bytes 1000x12
				eu-0 stockmesh_ready 1x12`}},
			[]string{
				`eu-0 process_resident_memory_bytes 800x12
				eu-0 go_gc_gomemlimit_bytes 1000x12
				eu-0 stockmesh_ready 1x12`,
				`db-0 process_resident_memory_bytes 1200x12
				db-0 go_gc_gomemlimit_bytes 1000x12`,
			}},
		{"StockmeshTokenKeysOld",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_jwks_age_seconds 5000x12`}},
			[]string{`eu-0 stockmesh_jwks_age_seconds 2000x12`}},
		{"StockmeshTokenKeysExpire",
			[]firing{{"instance=eu-0 job=eu", `eu-0 stockmesh_jwks_age_seconds 80000x3`}},
			[]string{`eu-0 stockmesh_jwks_age_seconds 50000x3`}},
		{"StockmeshLogLinesDropped",
			[]firing{{"instance=eu-0 job=eu level=error", `
				eu-0 stockmesh_log_lines_dropped_total{level="error"} 0+1x45
				eu-0 stockmesh_log_lines_dropped_total{level="info"} 7x45`}},
			[]string{
				`eu-0 stockmesh_log_lines_dropped_total{level="error"} 0x5 100x45`,
			}},
		{"StockmeshTracesDropped",
			[]firing{{"job=eu", `eu-0 stockmesh_traces_dropped_total 0+1x75`}},
			[]string{`eu-0 stockmesh_traces_dropped_total 0x5 100x75`}},
	}
}
