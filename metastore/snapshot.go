package metastore

// Chunking holds the parameters that decide where content is cut. They are
// part of every dump, so that whoever rebuilds an index cuts alike.
type Chunking struct {
	Algorithm     string // the chunker library's name of it
	Min, Avg, Max int    // bytes
	Secret        []byte // 32 bytes, made at init; keys the cut points
}

// Snapshot is the one row of a dump's snapshots table.
type Snapshot struct {
	Seq                int64
	ID                 string
	Writer             string
	Set                string
	Hostname           string
	Started, Finished  Time
	Version            string // of vaultik, with Revision the git commit it was built from
	Revision           string
	Roots              []string // absolute paths, any bytes but NUL
	Excludes           []string // patterns in force
	Tags               []string
	Chunking           Chunking
	NewFiles, NewBytes int64 // file versions recorded by this run, and their content's bytes
	StoredBytes        int64 // ciphertext bytes of blobs uploaded by this run
}

// Totals are the counts that a manifest signs; a loaded dump must agree with
// every one of them. Files and Bytes describe the tree, the rest are rows.
type Totals struct {
	Files int64 // rows of files
	Bytes int64 // sum of size over regular files whose content was captured; each hard link counts; at most MaxBytes

	Volumes, Paths, Xattrs, Contents, FileChunks, Chunks, Blobs, BlobChunks int64
}

// MaxBytes is where Totals.Bytes stops: 2^53-1, the greatest number that every
// JSON reader takes. A file of nothing but a hole can claim 2^63-1 bytes, and
// must not be able to make a backup fail by that.
const MaxBytes = 1<<53 - 1

// AddBytes adds a file's size, of at least 0, to a sum.
func AddBytes(sum, size int64) int64 {
	if size > MaxBytes-sum {
		return MaxBytes
	}
	return sum + size
}

// BlobRef names a blob.
type BlobRef struct {
	Seq  int64
	Hash [32]byte
	Size int64 // bytes of the object
}
