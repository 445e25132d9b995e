// Package metastore holds the words of metadata: what is said about a [File] and
// about a [Snapshot], the same on both sides of a store. The packages below it
// keep them in SQLite:
//
//	      writer                                   reader
//
//	index                                    view
//	one database per writer: what was        one database per snapshot: its tree,
//	backed up, and where every chunk is      laid out to be listed and read fast
//	  │                                        ▲
//	  │ Run.WriteDump                          │ build.View
//	  ▼                                        │
//	dump ───────────── the store ──────────► view/build
//	a snapshot's metadata as SQL text        reads and checks a dump
//
// What each of them is for:
//
//   - index records runs and commits them in two steps. It is rebuilt out of
//     views. index/snapshot finds out what a run's snapshot needs of the store
//     and writes its dump; index/clean deletes what nothing needs.
//   - dump is the text between the two: its tables, the writer that keeps to its
//     limits, the parser of its grammar, and what a row may say. Any sqlite3
//     program can load one; here none is ever executed.
//   - view/build makes a view of a dump: all of it, or nothing.
//   - view answers: entries by number and by name, listings, extents.
//   - internal/sqlite has the connections and prepared statements of both.
//   - gitignore has the patterns that a snapshot records; metatest makes views
//     of literals, for tests.
//
// None of them talks to a store or knows a key.
package metastore
