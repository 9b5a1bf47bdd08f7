package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// simCommand is what a client wants, however often it must ask for it.
type simCommand struct {
	id      int
	region  int // its home
	command protocol.Command
	sender  uint64
	tries   int
	open    []*simAttempt // tries that may still be answered
	verdict simVerdict
	answer  string // as first given
	gone    bool   // the client asks no more
}

// simVerdict is what the client was told last.
type simVerdict uint8

const (
	simUntold simVerdict = iota
	simDone
	simRefused
	simUnknown
)

func (v simVerdict) String() string { return [...]string{"untold", "done", "refused", "unknown"}[v] }

// simAttempt is one try of a command, on its way through a node.
type simAttempt struct {
	of     *simCommand
	node   *simNode
	call   *protocol.Call
	asks   bool // only what became of the command
	before int  // times that the command had taken effect when the try was sent
	n      int  // which try it is
	alone  bool // no other try was under way when it was sent
	terms  int  // of its region, when it was sent
	ended  bool
}

// stood tells whether the command's last effect stood in the log when the try was sent.
func (a *simAttempt) stood() bool {
	return len(a.node.region.audit.effects[a.of.id]) == a.before
}

func (c *simCommand) String() string {
	b := protocol.AppendJSON(nil, &c.command)
	return fmt.Sprintf("c%d (%s) %s", c.id, c.verdict, b)
}

func (w *simWorld) commandOf(subject string) *simCommand {
	id, err := strconv.Atoi(strings.TrimPrefix(subject, "c"))
	if err != nil || id >= len(w.commands) {
		return nil
	}
	return w.commands[id]
}

// ask makes a new command and sends it.
func (w *simWorld) ask(region int, sender uint64, command protocol.Command, node *simNode) *simCommand {
	c := &simCommand{id: len(w.commands), region: region, command: command, sender: sender}
	c.command.Key = fmt.Sprint("k", c.id)
	if err := c.command.Check(); err != nil {
		w.fail("wire", "command %v: %v", c, err)
	}
	w.commands = append(w.commands, c)
	w.try(c, node, false)
	return c
}

// try sends a command to a node of its home, or asks there what became of it.
func (w *simWorld) try(c *simCommand, node *simNode, outcome bool) {
	if node == nil {
		return
	}
	a := &simAttempt{of: c, node: node, asks: outcome, before: len(w.regions[c.region].audit.effects[c.id])}
	a.call = &protocol.Call{
		Command: c.command, Subject: fmt.Sprint("c", c.id), Sender: c.sender,
		Due: node.config.elapsed() + int64(node.config.Patience),
	}
	a.call.Command.Lines = slices.Clone(c.command.Lines)
	a.call.Done = func(*protocol.Call) { w.answered(a) }
	if outcome {
		a.call.Command = protocol.Command{Op: protocol.OpOutcome, Key: c.command.Key}
	} else if w.mutant.key != nil {
		a.call.Command.Key = w.mutant.key(c)
	}
	c.tries++
	a.n, a.alone, a.terms = c.tries, len(c.open) == 0, w.regions[c.region].terms
	c.open = append(c.open, a)
	node.queue.put(a.call)
}

// attempts finds the try that a call belongs to.
func (w *simWorld) attempts(call *protocol.Call) *simAttempt {
	for _, a := range w.commandOf(call.Subject).open {
		if a.call == call {
			return a
		}
	}
	w.fail("unanswered", "a call of %s is left over that was answered", call.Subject)
	return &simAttempt{}
}

// abandoned takes note that a node will never answer.
func (c *simCommand) abandoned(n *simNode) {
	before := len(c.open)
	c.open = slices.DeleteFunc(c.open, func(a *simAttempt) bool { return a.node == n })
	if len(c.open) < before && c.verdict != simDone {
		c.verdict = simUnknown
	}
}

// answered is where clients hear of their commands.
func (w *simWorld) answered(a *simAttempt) {
	c := a.of
	if a.ended {
		w.fail("unanswered", "command %v is answered twice", c)
	}
	a.ended = true
	c.open = slices.DeleteFunc(c.open, func(x *simAttempt) bool { return x == a })
	if w.telling {
		w.tell("  c%d: %s", c.id, protocol.AppendReply(nil, a.call))
	}
	switch {
	case a.asks && w.mutant.key == nil:
		w.checkOutcome(a)
	case a.asks:
	case a.call.Err == nil:
		w.done(a)
	case a.call.Err.Details != nil && a.call.Err.Details.Outcome == "unknown":
		if c.verdict != simDone {
			c.verdict = simUnknown
		}
	default:
		w.refused(a)
	}
	if a.node.trap == simTrapAnswer {
		panic(simCrash{})
	}
}

// done is I5, and I4 for a command that was answered before.
func (w *simWorld) done(a *simAttempt) {
	c, audit := a.of, w.regions[a.of.region].audit
	effects := audit.effects[c.id]
	if len(effects) == 0 {
		w.fail("I5", "command %v is acknowledged and not in the log", c)
	}
	answer := string(protocol.AppendOK(nil, &a.call.Result))
	if len(effects) == 1 && c.answer != "" && answer != c.answer {
		w.fail("I4", "command %v was answered %s, now %s", c, c.answer, answer)
	}
	if len(effects) == 1 {
		c.answer = answer
	}
	if r := a.call.Result.Reservation; c.verdict != simDone && r != nil && c.command.Op == protocol.OpReserve {
		w.reservations = append(w.reservations, simHold{r.ID, c.region})
	}
	c.verdict = simDone
}

// refused is I6: a refusal says that the command did nothing, unless another try of it
// is under way, which may do better.
func (w *simWorld) refused(a *simAttempt) {
	c := a.of
	if w.regions[c.region].audit.remembers(c) && (a.stood() || len(c.open) == 0) {
		w.fail("I6", "command %v is refused (%v) and in the log", c, a.call.Err)
	}
	for _, x := range c.open {
		if x.n < a.n && x.node == a.node && x.terms == w.regions[c.region].terms {
			w.fail("I6", "command %v is refused (%v), and an earlier try of it still waits", c, a.call.Err)
		}
	}
	if c.verdict != simDone { // and forgotten since, as two windows have gone by
		c.verdict = simRefused
	}
}

// checkOutcome is I6 for commands of unknown fate: whoever asks is told the truth, but for
// tries that were sent after the question or overtaken by it as one owner followed another.
func (w *simWorld) checkOutcome(a *simAttempt) {
	c, audit := a.of, w.regions[a.of.region].audit
	switch res := &a.call.Result; {
	case a.call.Err != nil:
	case res.Known && len(audit.effects[c.id]) == 0:
		w.fail("I5", "command %v is known and not in the log", c)
	case !res.Known && audit.remembers(c) && (a.stood() || a.n == c.tries && (a.alone || a.terms == w.regions[c.region].terms)):
		w.fail("I6", "command %v is unknown and in the log", c)
	case res.Known && len(audit.effects[c.id]) == 1 && c.answer != "":
		if answer := string(protocol.AppendOK(nil, res.Outcome)); answer != c.answer {
			w.fail("I4", "command %v was answered %s, is known as %s", c, c.answer, answer)
		}
	}
}
