// Package diskcache keeps the ciphertext that readers fetched from a store in
// a folder, so that the next one need not fetch it again: after a remount, or
// in another mount on this machine.
//
// A [Cache] is a remote.Store in front of another one. A Get of a range of a
// blob is answered from the folder as far as the folder has it, and from the
// store for the rest, which is recorded on its way through. Everything else
// goes straight to the store.
//
// # What it promises
//
//   - It never makes a read fail. A folder that is full, read-only, locked up
//     or gone is no cache, which is told once; damage is a miss.
//   - Nothing that is in the folder is believed: every record carries the
//     SHA-256 of its data, place and key, which is checked on every use. A file
//     with a record that fails is removed, and the range is fetched again.
//   - A range counts as recorded when the store delivered every byte of it.
//     What a process killed while appending left behind is not.
//   - All processes that use one folder share what is in it and keep its size
//     bounded together. The blobs used longest ago go first.
//   - A reader waits for the folder instead of the store at most a tenth of
//     the time: what the disk cannot take is not recorded.
//
// # What it does not promise
//
// The hash shows that the data are what the store sent, not that the store
// sent the truth. Whoever decrypts finds out, and calls [Cache.Forget] before
// trying once more. Whoever may write to the folder can make reads fail, and
// nothing worse. An object that was deleted from the store is still found as
// long as it is in the folder: a blob is named by its hash, so it cannot have
// become another one.
//
// # The folder
//
// Folder and files are private to their owner, 0700 and 0600. A blob is one
// file, named like the blob's key with commas for slashes, to which records
// are appended in the order in which ranges were fetched:
//
//	"vkcache1", offset, length, SHA-256 of offset, length, key and data, data
//
// with offset and length of the range as 8 bytes each, little-endian. Records
// may overlap. A file's mtime says, to a minute, when it was used last. The
// file "lock" is held (flock) by whoever appends or removes, and contains the
// size of everything, which may be too high and is never too low; the first
// append of each process counts anew.
package diskcache
