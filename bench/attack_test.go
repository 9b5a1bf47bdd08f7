package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBombIsOne(t *testing.T) {
	bomb, err := makeBomb()
	if err != nil {
		t.Fatal(err)
	}
	end := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff} // of a message, and of the stream
	inflated, err := io.Copy(io.Discard, flate.NewReader(io.MultiReader(bytes.NewReader(bomb), bytes.NewReader(end))))
	if err != nil || len(bomb) > bombBytes || inflated < 50<<20 {
		t.Errorf("%d bytes inflate to %d, %v", len(bomb), inflated, err)
	}
}

// TestAttacksAreRepeatable draws the same attacks from a seed twice.
func TestAttacksAreRepeatable(t *testing.T) {
	draw := func(seed uint64) (drawn [][]byte) {
		for number := range uint64(50) {
			thug := &thug{random: rand.New(rand.NewPCG(seed, number))}
			m := thug.mask()
			drawn = append(drawn, append(thug.bytes(100), m[:]...))
		}
		return drawn
	}
	if !slices.EqualFunc(draw(7), draw(7), bytes.Equal) || slices.EqualFunc(draw(7), draw(8), bytes.Equal) {
		t.Error("a seed doesn't say what is drawn")
	}
}

// TestPatientNodeIsCaught attacks a node that answers every command with ok and closes
// nothing.
func TestPatientNodeIsCaught(t *testing.T) {
	n := startNullNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // the attack's time
	defer cancel()
	o := &orders{Node: n.Addr().String()}
	for name, run := range map[string]func(*thug) error{"slow head": slowHead, "broken rules": brokenRules} {
		thug := &thug{orders: o, ctx: ctx, random: rand.New(rand.NewPCG(1, 12))} // 12: a close of one byte, or so
		err := run(thug)
		thug.close()
		if err == nil {
			t.Errorf("%s: no fault", name)
		}
	}
}

func TestAttackersPauseAndTell(t *testing.T) {
	n := startNullNode(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	done := make(chan error, 1)
	go func() { done <- driveAttackers(t.Context(), theirs) }()
	driver := &thugs{nc: ours, r: bufio.NewReader(ours)}
	o := orders{Node: n.Addr().String(), Rate: 200, Seed: 3, Kinds: []string{"gone at once"}}
	if err := json.NewEncoder(ours).Encode(&o); err != nil {
		t.Fatal(err)
	}
	if err := driver.attack(); err != nil {
		t.Fatal(err)
	}
	await(t, "an attack is over", func() bool {
		tally, err := driver.tally()
		return err != nil || tally.sum() > 0
	})
	before, err := driver.pause()
	if err != nil {
		t.Fatal(err)
	}
	after, err := driver.tally()
	if err != nil || before.sum() == 0 || before.sum() != after.sum() || before.Done["gone at once"] != before.sum() {
		t.Errorf("%+v while it paused, then %+v, %v", before, after, err)
	}
	ours.Close()
	if err := <-done; err != nil && !strings.Contains(err.Error(), "closed pipe") {
		t.Error(err)
	}
}
