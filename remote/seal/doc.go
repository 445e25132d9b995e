// Package seal is the envelope of everything secret in a store: age around
// zstd. A sealed object is an ordinary age file, so
//
//	age -d -i KIT object | zstd -d
//
// opens it without this program.
//
// The package promises that what Open returns is exactly what was written to
// the Part: age authenticates every byte and the end of the stream, and the
// caller gives the length that the signed manifest states, so nothing can be
// cut off or added. It does not say who wrote the object. age has no senders:
// whoever knows a recipient can seal to it. That is what the signed manifest
// and its SHA-256 of the object are for, and they are checked before Open.
//
// age calls the 64 KiB units of its payload chunks. Here a chunk is a piece of
// a file's content, so age's units are called pieces.
package seal
