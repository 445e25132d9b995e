package fstest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// record writes the tree into the run and its new chunks into blobs.
func (w *World) record(ctx context.Context, name string, run *index.Run, tree []Entry) error {
	p := packer{w: w, writer: name, run: run}
	volume, err := run.Volume(ctx, "ext4", 1, "/")
	if err != nil {
		return err
	}
	paths := make(map[string]int64)
	var sorted []string // parents first
	for _, e := range tree {
		sorted = append(sorted, e.Path)
	}
	slices.Sort(sorted)
	for _, at := range sorted {
		parent, base := paths[path.Dir(at)], path.Base(at)
		if at == "/" {
			parent, base = 0, ""
		}
		if paths[at], err = run.Path(ctx, parent, base); err != nil {
			return err
		}
	}
	linked := make(map[uint64]int64) // contents by inode
	for _, e := range tree {
		f := e.File
		f.Volume = volume
		switch id, ok := linked[e.Inode]; {
		case ok && e.Nlink > 1 && e.Type == metastore.Regular:
			f.Content = id
		case len(e.Pieces) > 0, e.Type == metastore.Regular && e.Size == 0 && e.State == metastore.StateComplete:
			if f.Content, err = p.content(ctx, e.Pieces); err != nil {
				return err
			}
			linked[e.Inode] = f.Content
		}
		if _, err := run.Record(ctx, paths[e.Path], f, false); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	for at, id := range paths {
		open, err := run.Children(ctx, id, "", index.LastName)
		if err != nil {
			return err
		}
		for _, v := range open {
			if _, ok := paths[path.Join(at, v.Name)]; !ok {
				if _, err := run.Close(ctx, v.Path); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(p.flush(), p.upload(ctx))
}

// packer puts chunks into frames and frames into blobs.
type packer struct {
	w      *World
	writer string
	run    *index.Run

	frame []byte
	tiles []blob.FrameChunk
	blob  *blob.Writer
	ids   map[remote.Hash]int64 // of the chunks in blob and in frame
}

func (p *packer) content(ctx context.Context, pieces []Piece) (int64, error) {
	var chunks []index.ContentChunk
	at := int64(0)
	for _, piece := range pieces {
		if len(piece.Data) == 0 {
			chunks = append(chunks, index.ContentChunk{Offset: at, Length: piece.Hole})
			at += piece.Hole
			continue
		}
		id, err := p.chunk(ctx, piece)
		if err != nil {
			return 0, err
		}
		chunks = append(chunks, index.ContentChunk{Offset: at, Length: int64(len(piece.Data)), Chunk: id})
		at += int64(len(piece.Data))
	}
	return p.run.Content(ctx, chunks, 0)
}

func (p *packer) chunk(ctx context.Context, piece Piece) (int64, error) {
	h := remote.Sum(piece.Data)
	id, stored, err := p.run.Chunk(ctx, h, int64(len(piece.Data)))
	if _, packed := p.ids[h]; err != nil || stored || packed || piece.Lost {
		return id, err
	}
	if len(p.frame)+len(piece.Data) > sharedFrame {
		if err := p.flush(); err != nil {
			return 0, err
		}
		if p.blob != nil && p.blob.Size() > blobSize {
			if err := p.upload(ctx); err != nil {
				return 0, err
			}
		}
	}
	if p.ids == nil {
		p.ids = make(map[remote.Hash]int64)
	}
	p.ids[h] = id
	p.frame = append(p.frame, piece.Data...)
	p.tiles = append(p.tiles, blob.FrameChunk{ID: h, Length: int64(len(piece.Data))})
	return id, nil
}

// flush ends the frame.
func (p *packer) flush() (err error) {
	if len(p.frame) == 0 {
		return nil
	}
	if p.blob == nil {
		if p.blob, err = blob.NewWriter([]age.Recipient{p.w.Identity.Recipient()}, 0); err != nil {
			return err
		}
	}
	err = p.blob.Add(blob.NewCompressor(seal.Fastest).Compress(nil, p.frame), len(p.frame), p.tiles)
	p.frame, p.tiles = nil, nil
	return err
}

// upload ends the blob.
func (p *packer) upload(ctx context.Context) error {
	if p.blob == nil {
		return nil
	}
	b, err := p.blob.Close()
	if err != nil {
		return err
	}
	p.w.put(remote.BlobKey(p.writer, remote.Seq(p.run.Seq()), b.Hash), b.Object)
	var chunks []index.BlobChunk
	for _, c := range b.Chunks {
		chunks = append(chunks, index.BlobChunk{
			Chunk: p.ids[c.ID], FrameOffset: c.FrameOffset, FrameLength: c.FrameLength, Offset: c.Offset, Length: c.Length,
		})
	}
	err = p.run.AddBlob(ctx, index.Blob{Hash: b.Hash, Size: int64(len(b.Object)), Header: b.Header}, chunks)
	p.blob, p.ids = nil, nil
	return err
}
