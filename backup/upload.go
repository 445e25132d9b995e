package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// sealedBlob is a finished blob with the index's ids of its chunks, in order.
type sealedBlob struct {
	*blob.Blob
	chunks []frameChunk
}

// blobChunks is how many chunks end a blob before its size does. Tiny files
// would put hundreds of thousands into one, and each takes some 150 bytes of
// memory from here until it is recorded.
const blobChunks = 64 << 10

// seal encrypts frames, in order, into blobs. Blobs live in memory only: what
// is retried is the same bytes, and nothing of them ever touches the disk.
//
// Every blob takes a slot before it is begun, and upload gives it back.
func (w *writer) seal(ctx context.Context, in *frames, out chan<- *sealedBlob, slots chan<- struct{}) error {
	var (
		open   *blob.Writer
		chunks []frameChunk
	)
	flush := func() error {
		if open == nil {
			return nil
		}
		b, err := open.Close()
		if err != nil {
			return fmt.Errorf("seal a blob: %w", err)
		}
		sealed := &sealedBlob{b, chunks}
		open, chunks = nil, nil
		return send(ctx, out, sealed)
	}
	for {
		f, err := receive(ctx, in.ordered)
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		if _, err := receive(ctx, f.done); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if open == nil {
			if err := send(ctx, slots, struct{}{}); err != nil {
				return err
			}
			if open, err = blob.NewWriter(w.recipients, w.BlobSize); err != nil {
				return fmt.Errorf("seal a blob: %w", err)
			}
		}
		parts := make([]blob.FrameChunk, len(f.chunks))
		for i, c := range f.chunks {
			parts[i] = blob.FrameChunk{ID: c.hash, Length: c.length}
		}
		if err := open.Add(f.packed, f.size, parts); err != nil {
			return fmt.Errorf("seal a blob: %w", err)
		}
		chunks = append(chunks, f.chunks...)
		w.buffers.put(f.packed)
		if open.Size() >= w.BlobSize || len(chunks) >= blobChunks {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// upload puts blobs and then, only then, records them in the index: after a
// crash at any moment the index knows no blob that the store does not have.
func (w *writer) upload(ctx context.Context, in <-chan *sealedBlob, slots <-chan struct{}) error {
	for {
		b, err := receive(ctx, in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		began, size := w.Now(), int64(len(b.Object))
		key := remote.BlobKey(w.Writer, w.seq(), b.Hash)
		// The name is the hash of bytes that nobody can guess: whatever is
		// there under it already is this blob, put by a try whose answer
		// got lost.
		if err := w.Store.Put(ctx, key, b.Object); err != nil && !errors.Is(err, remote.ErrExists) {
			return fmt.Errorf("upload a blob: %w", err) // which names it
		}
		rows := make([]index.BlobChunk, len(b.Chunks))
		for i, c := range b.Chunks {
			rows[i] = index.BlobChunk{
				Chunk:       b.chunks[i].id,
				FrameOffset: c.FrameOffset, FrameLength: c.FrameLength,
				Offset: c.Offset, Length: c.Length,
			}
		}
		err = w.run.AddBlob(ctx, index.Blob{
			Hash: b.Hash, Size: size, Header: b.Header,
			Level: int(w.Level), UploadMS: max(0, w.Now().Sub(began).Milliseconds()), // a clock may be set back
		}, rows)
		if err != nil {
			return fmt.Errorf("record blob %s: %w", key, err)
		}
		b.Release()
		<-slots
		w.transit.remove(b.chunks)
		w.tally.stored.Add(size)
		w.tally.blobs.Add(1)
		w.progress("")
	}
}

// seq is the number that this run uploads under.
func (w *writer) seq() remote.Seq { return remote.Seq(w.run.Seq()) }
