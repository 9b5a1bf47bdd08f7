// Package rights is the policy by which regions move stock rights: whom a region
// asks for units of an item, how much, and what it gives when it is asked.
//
// It is pure: no I/O, no goroutine, no clock; the caller passes the time in. It
// decides, and moves nothing: the ledger's Grant and Accept do. So a wrong decision
// here costs time or messages, never a unit. DESIGN.md tells the policy in words.
package rights
