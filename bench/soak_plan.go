package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/bench/fault"
)

// Files in the directory of the nodes.
const (
	planFile    = "plan.txt"
	journalFile = "journal.jsonl"
)

func (o *options) cluster() fault.Cluster { return fault.Cluster{Regions: o.regions, Each: o.each} }

// layOut decides on everything before the nodes are started.
func (s *soakTrial) layOut() error {
	if err := s.drawUp(); err != nil { // before there is anything to be kept
		return err
	}
	dir, err := os.MkdirTemp(s.dir, "stockmesh-bench-")
	if err != nil {
		return err
	}
	t := s.target
	t.dir = dir
	if s.regions > 1 {
		t.wires = newWires()
	}
	if t.nodes, err = s.options.plan(dir, t.wires); err != nil {
		return err
	}
	if err := errors.Join(t.equip(s.options), t.settleDown()); err != nil {
		return err
	}
	if err := errors.Join(s.writePlan(), s.layDisks()); err != nil {
		return err
	}
	var names []string
	for _, n := range t.nodes {
		names = append(names, n.name)
	}
	s.crowd.journal, err = createJournal(filepath.Join(dir, journalFile), s.id, names, s.crowd.gen)
	return err
}

// startAll starts the nodes and waits until they know each other.
func (s *soakTrial) startAll(ctx context.Context) error {
	t := s.target
	if err := t.start(ctx, s.progress); err != nil {
		return err
	}
	if err := t.reach(ctx); err != nil {
		return err
	}
	s.crowd.endpoints = t.endpoints
	if s.meshed() {
		return t.awaitMesh(ctx)
	}
	return nil
}

// drawUp makes the plan, or reads the one that is asked for. Faults that can't be had
// here are left out, and it is said why. Where none is left, there is nothing to be
// shown.
func (s *soakTrial) drawUp() error {
	kinds, err := fault.ParseKinds(s.faults)
	if err != nil {
		return err
	}
	if s.previous != "" {
		if _, err := os.Stat(s.previous); err != nil {
			return fmt.Errorf("--previous: %w", err)
		}
	}
	lacking := make(map[fault.Kind]string)
	for _, k := range kinds {
		if why := s.lacks(k); why != "" {
			lacking[k] = why
			s.progress.note("  %s: skipped, %s", k, why)
		}
	}
	if s.planFile == "" {
		return s.drawLots(kinds, lacking)
	}
	events, err := readPlan(s.planFile, s.cluster())
	if err != nil {
		return err
	}
	events = slices.DeleteFunc(events, func(e fault.Event) bool { return !slices.Contains(kinds, e.Kind) })
	if len(events) == 0 {
		return fmt.Errorf("%s: there are no faults of the kinds that are asked for", s.planFile)
	}
	planned := kindsOf(events)
	s.plan = slices.DeleteFunc(events, func(e fault.Event) bool { return lacking[e.Kind] != "" })
	for _, e := range s.plan {
		s.duration = max(s.duration, e.End())
	}
	if len(s.plan) == 0 {
		return nothingLeft(planned, lacking)
	}
	return nil
}

// drawLots has the seed say what goes wrong.
func (s *soakTrial) drawLots(kinds []fault.Kind, lacking map[fault.Kind]string) error {
	left := slices.DeleteFunc(slices.Clone(kinds), func(k fault.Kind) bool { return lacking[k] != "" })
	if len(left) == 0 {
		return nothingLeft(kinds, lacking)
	}
	if s.plan = fault.Plan(s.seed, s.duration, s.cluster(), left); len(s.plan) == 0 {
		return fmt.Errorf("seed %d draws no fault in %v: --duration has to be longer", s.seed, s.duration)
	}
	return nil
}

// nothingLeft says of each kind why it is not to be had.
func nothingLeft(kinds []fault.Kind, lacking map[fault.Kind]string) error {
	var all []string
	for _, k := range kinds {
		all = append(all, fmt.Sprintf("%s: %s", k, lacking[k]))
	}
	return missing("soak is left without any fault: %s", strings.Join(all, "; "))
}

func kindsOf(events []fault.Event) (kinds []fault.Kind) {
	for _, e := range events {
		if !slices.Contains(kinds, e.Kind) {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func readPlan(name string, c fault.Cluster) ([]fault.Event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	events, err := fault.Read(f)
	if err == nil {
		err = c.Check(events)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return events, nil
}

// lacks says what a kind of fault takes that is not to be had, "" if nothing.
func (s *soakTrial) lacks(k fault.Kind) string {
	switch {
	case !k.Fits(s.cluster()):
		return "there are no links between regions"
	case k == fault.Stop && !canStop:
		return "this system can't stop a process"
	case k == fault.Disk:
		return s.lacksDisk()
	case k == fault.Upgrade && s.previous == "":
		return "no other version was given with --previous"
	}
	return ""
}

func (s *soakTrial) planPath() string { return filepath.Join(s.target.dir, planFile) }

// writePlan keeps the plan beside the nodes' data.
func (s *soakTrial) writePlan() error {
	f, err := os.Create(s.planPath())
	if err != nil {
		return err
	}
	about := fmt.Sprintf("bench soak --spawn %s --seed %d --duration %v\n%d regions of %d nodes", s.spawn, s.seed, s.duration, s.regions, s.each)
	s.progress.note("  %d faults in %v, drawn from seed %d", len(s.plan), s.duration, s.seed)
	return errors.Join(fault.Write(f, about, s.plan), f.Close())
}

// keep leaves what a violation is looked into with where it is.
func (s *soakTrial) keep() error {
	dir := s.target.dir
	if dir == "" {
		return nil
	}
	s.target.dir = "" // which is not removed then
	err := s.disks.save(s.target.nodes)
	s.progress.note("  kept in %s: the plan, what the clients saw (%s), the nodes' logs and data", dir, journalFile)
	again := []string{"bench soak --spawn", s.spawn, "--plan", filepath.Join(dir, planFile)}
	if s.previous != "" {
		again = append(again, "--previous", s.previous)
	}
	s.progress.note("  seed %d; the same again: %s", s.seed, strings.Join(again, " "))
	return err
}

// tell says what a fault does, with the names of whom it hits.
func (s *soakTrial) tell(e fault.Event) string {
	return fmt.Sprintf("%s %s for %v", e.Kind, s.whom(e), e.For)
}

func (s *soakTrial) whom(e fault.Event) string {
	region, peer := regionNames[e.Region], regionNames[e.Peer]
	switch e.Kind {
	case fault.Region:
		if !s.meshed() {
			return "with all its nodes"
		}
		return region + ", all its nodes"
	case fault.Cut:
		return region + " off"
	case fault.Slow, fault.Lossy:
		return fmt.Sprintf("link between %s and %s", region, peer)
	case fault.Oneway:
		return fmt.Sprintf("link, nothing from %s to %s", region, peer)
	case fault.Clock:
		return fmt.Sprintf("of %s off by %v", s.victim(e).name, e.By)
	}
	return s.victim(e).name
}

// victim is the node that a fault hits.
func (s *soakTrial) victim(e fault.Event) *node {
	return s.target.nodes[e.Region*s.target.each+e.Node]
}

// victims are all nodes of its region.
func (s *soakTrial) victims(e fault.Event) []*node {
	return s.target.nodes[e.Region*s.target.each : (e.Region+1)*s.target.each]
}

func faultNames() (names []string) {
	for _, k := range fault.Kinds() {
		names = append(names, string(k))
	}
	return names
}
