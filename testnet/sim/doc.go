// Package sim runs the real market machine for many peers in virtual time: one
// goroutine, one queue of events, and one seed from which every delay, loss and crash is
// drawn. The same configuration gives the same trace, bit for bit, and so does a failure.
//
// What is real: every market.Machine, its journal entries, the manifests, pages, leaves
// and nodes. What is not: the network (delay, loss, duplicates, links cut one way or both,
// traffic held back), the disk (what was not synced may go with a crash), the clocks
// (drift, and a wall clock that is wrong), the sandbox (a result computed from stage and
// index, after a time), and signatures (package insecure).
//
// Chaos draws a mesh, jobs, faults and orders from a seed, heals everything, and wants
// each job to end with exactly the right results. The invariants I1 to I8 of
// docs/design.md section 5.7 are checked while it runs; invariant.go says how. Counts
// tell how often each fault and each transition of the machine came about: what a run of
// many seeds never did, it has not tested, and that fails it.
//
//	make sim                   1,000 seeds, and those of seeds.txt
//	make sim SEED=17,31        some of them again
//	make sim TIME=1h           new seeds for an hour
//	make scale                 how well 1,000 peers and more share work, beside a central scheduler
//	make mutants               the planted bugs of mutations/: each must be caught
//	make mutants MUTANT=03     one of them
//
// What a few lines can set up has a test of its own: cases_test.go, scenario_test.go. That
// an invariant can fail at all is shown by break_test.go, that it notices faults of the
// machine by the planted bugs: a file of mutations/ says what the bug is, which test or seed
// catches it soonest, and how the code differs. Where the code has moved on, plant the bug
// anew and put the difference (git diff -U1) into the file.
package sim
