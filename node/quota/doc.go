// Package quota limits what one subject may use of a region: commands a second,
// connections and subscriptions, whichever nodes it uses them at.
//
// No node asks another on the way of a command. Each tells the others twice a second
// what its subjects use and counts with what it has heard; DESIGN.md says how far the
// sum over the nodes can be above a limit, and how it comes back.
package quota
