// Package remote is the bucket: where objects lie in it, what signs them and
// what the plain ones say.
//
// A [Store] maps keys to immutable objects. layout.go is the only file that
// spells a key. Every writer owns one prefix:
//
//	<writer>/signers/        signing keys, certified by the root key     certificate.go
//	<writer>/metadata/       manifests, blob lists, dump parts           manifest.go bloblist.go
//	<writer>/forgotten/      tombstones                                  tombstone.go
//	<writer>/blobs/          blobs                                       remote/blob
//
// Trust goes one way: the root key, which the caller brings, certifies
// signers; a signer signs manifests and tombstones; a manifest names blobs,
// lists and dump parts by the SHA-256 of their bytes and the manifest before
// it by its own. [ReadWriter] walks this for one writer and returns what holds
// and, apart, what does not.
//
// It promises that nothing is decompressed or decoded before its signature
// was checked, that whatever has one meaning has one encoding (anything else
// is refused as [ErrCorrupt]), and that no size which an outsider can choose
// is used to allocate memory beyond the limits in limits.go.
//
// It does not decrypt: no code here needs or accepts an age identity, so
// prune and audit, which need only this package, work without one. Nor can it
// notice on its own that a store hides a writer's newest snapshots; [Seen]
// remembers what was shown before, and a reader that never looked before
// cannot know.
//
// docs/FORMAT.md describes the same bytes for those who write another reader.
package remote
