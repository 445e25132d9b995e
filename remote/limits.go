package remote

// Absolute limits of a reader, in bytes unless said otherwise. They are part
// of format 1 and are never taken from an object: whatever a manifest, a list
// or a header claims, a reader refuses to go beyond them.
const (
	MaxHeader     = 64 << 10  // header of an age file
	MaxChunk      = 16 << 20  // plaintext of a chunk, and of a frame
	MaxBlob       = 1 << 30   // a blob, encrypted
	MaxDumpPart   = 64 << 20  // a dump part, encrypted; writers cut at 32 MiB
	MaxList       = 256 << 20 // a blob list, compressed and plain alike
	MaxManifest   = 256 << 20 // a manifest, compressed and plain alike
	MaxTombstone  = 16 << 10  // a tombstone
	MaxSignature  = 4 << 10   // a public key file or a signature file
	MaxRevocation = 16 << 20  // a revocation: some 190,000 tombstones
	MaxName       = 255       // name of a directory entry, as on Linux
	MaxDepth      = 4096      // components of a path
	MaxWindow     = 32 << 20  // zstd window
)

// maxNumber is the greatest number in any JSON object: 2^53-1, the last one
// that tools which keep numbers as doubles (jq, awk) still read exactly.
const maxNumber = 1<<53 - 1

// Tags of a snapshot.
const (
	MaxTags = 64
	maxTag  = 128 // bytes of one
)
