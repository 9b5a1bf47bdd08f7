//go:build !enable_antithesis_sdk

package clustertest

const asserting = false
