// Package retention decides which snapshots of a writer stay. It looks at
// nothing but what is handed to it, and changes nothing.
//
// What a policy can rest on are numbers and times. Run numbers are signed and
// without gaps. Times are what the writer claims, and a writer that was taken
// over may claim anything; but the chain of signatures says which snapshot came
// before which, so that a claimed time that runs against it, or that lies in
// the future, is noticed. Then every rule that goes by times refuses, and names
// the culprits. The store's own times, where they are known, are for one rule
// only: nothing goes that the store took recently (Policy.MinAge).
//
// Days, weeks (those of ISO 8601, from Monday on), months and years are those
// of UTC, so that every machine that applies a policy decides alike.
package retention
