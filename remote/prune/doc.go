// Package prune deletes what no snapshot needs. It takes the store and the
// public root key, and no other key, no lock and no clock: it may run on any
// machine, several times at once, beside backups and purges, and may be killed
// at any moment.
//
// # What is deleted
//
// Of a writer whose newest manifest is N, an object under blobs/<k>/ or
// metadata/<k>/ is deleted if k ≤ seq(N) and
//
//   - it is a blob that no retained snapshot refers to and N does not pin,
//   - it is a blob list or a part of a dump that no retained manifest names, or
//   - it is the manifest of a run that a valid tombstone forgot, which a purge
//     left when it was killed.
//
// Retained are the manifests without a valid tombstone; N is always one of
// them. All of this holds only while [remote.WriterState.Stopped] has nothing
// to say: if the chain has a gap or a manifest cannot be read or believed, what
// it refers to is unknown, and nothing of that writer is deleted. Signatures
// are never deleted, because a manifest's keeps its number taken, nor are
// signers, tombstones, or objects whose key is not one of ours.
//
// # Why this is safe
//
// Writers share no objects, so one writer is enough to look at. Four things are
// asked of it (docs/DESIGN.md): one run at a time; run n+1 refers only to what
// n refers to or pins and to what it uploads itself under n+1, for blobs, dumps
// and lists alike; what it is about to commit is on its disk before; and a
// manifest's key is its number, taken once. Then, by induction, whatever any
// manifest m > N refers to or pins is
//
//	refs(N) ∪ pins(N) ∪ what was uploaded under numbers above N.
//
// The rule touches nothing of the three, and nothing that a retained manifest
// up to N refers to. Nor can a manifest up to N turn up later: the chain has no
// gap, so each of these numbers is either retained or forgotten for ever. So
// what may be deleted once may be deleted at any later time. An old plan, half
// of one, two at once and one that is repeated are all the same to it.
//
// # The order of reading
//
// One listing shows the manifests and all other objects; manifests are fetched
// while it comes in, tombstones after it. For safety it does not matter when an
// object is listed: the listing only proposes, and what the manifests say about
// a proposal stays true. What matters is that the manifests come from before
// the decision, and tombstones from after the manifests, so that whatever a
// purge at work takes from the first is explained by the second. An object may
// be put after the listing passed its key and be named by a manifest that is
// listed next; so what is named and not listed is looked at once more before
// it is called missing.
//
// A listing may be stale, or lie. If it hides the newest manifests, an older
// one passes for N: the rule is then about fewer numbers, and by the induction
// it spares all that the hidden ones need of them. (What remembers the newest
// manifest that was ever shown, [remote.Seen], notices this and stops the
// writer all the same: somebody should look into it.) If it hides an older
// manifest there is a gap, and the writer is stopped. If it hides a tombstone,
// the snapshot is retained, or is a gap where the manifest is gone. If it hides
// other objects, they stay. If it shows objects that do not exist, deleting
// them does nothing. Manifests and tombstones themselves are fetched, and their
// signatures are checked.
//
// # What is missing
//
// If an object that a retained manifest needs is not there, prune says so and
// goes on: nothing that it deletes could stand in for it, because no reader
// looks at what no manifest names, and the writer heals from its sources. A
// blob list is another matter. Without it nobody knows what the snapshot refers
// to, so the writer is stopped.
package prune
