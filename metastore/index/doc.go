// Package index is the writer's side of metastore: one database per writer that
// knows what was backed up and where every chunk is. A [Run] records one backup
// in an [Index]:
//
//	Directory, Children      what the set's last run saw, to find what changed
//	Chunk, Content, AddBlob  which chunks are stored, and where
//	Record, Close, Gap       what the snapshot shows
//	Missing, References      what the snapshot needs of the store
//	WriteDump, Bases         the snapshot's metadata as a dump, whole or as a difference
//	SetIntent, Confirm       the commit, in two steps around the manifest's upload
//
// What a snapshot consists of is found out by package snapshot. Forget and Clean
// let go of purged snapshots, and package clean does the work; a [Rebuilding]
// makes an index anew out of what a store still has. The tables are in schema.sql
// of the folder above.
//
// What the index promises:
//
//   - What is not committed can be taken back whole: after a crash at any
//     moment it opens, says in its [Status] where it stands, and a rollback
//     restores exactly what the last commit saw. What was found out since stays
//     known: blobs that were uploaded or are lost, files that need not be read
//     again.
//   - A chunk counts as stored only while a blob holds it that the newest
//     manifest names, or that was uploaded since, and that every current
//     recipient can read.
//   - What an earlier run's snapshot showed never changes.
//
// What it does not: it does not survive being copied. Two copies of an index
// that both upload would write different runs under one number; the writer
// finds that out from the store. Nor does it lock: one process at a time may
// write, and seeing to that is the caller's part.
package index
