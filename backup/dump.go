package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// partSize bounds a dump part, in bytes of ciphertext. The format allows 32 MiB;
// smaller ones take less memory here, and a reader fetches some ahead.
const partSize = 8 << 20

// dump streams the snapshot's metadata into sealed parts and puts them: all of
// it, or the difference to the set's base.
func (w *writer) dump(ctx context.Context, m *remote.Manifest, commit *index.Commit) error {
	base, err := w.bases(ctx, m)
	if err != nil {
		return err
	}
	t := &w.tally
	row := metastore.Snapshot{
		Seq: int64(m.Seq), ID: m.Snapshot, Writer: m.Writer, Set: m.Set, Hostname: w.Hostname,
		Started: metastore.TimeOf(w.result.Started), Finished: metastore.TimeOf(w.result.Finished),
		Version: w.Version, Revision: w.Revision,
		Roots: w.set.Roots, Excludes: w.set.Rules.Patterns, Tags: w.tags(), Chunking: w.Chunking,
		NewFiles: t.changed.Load(), NewBytes: t.fresh.Load(), StoredBytes: t.stored.Load(),
	}
	var part *dumpPart
	totals, kind, err := w.run.WriteDump(ctx, row, func(int) (_ dump.PartWriter, err error) {
		part, err = newDumpPart(ctx, w, m)
		return part, err
	})
	if part != nil {
		err = errors.Join(err, part.stop())
	}
	if err != nil {
		return fmt.Errorf("dump the snapshot's metadata: %w", err)
	}
	for _, d := range m.Dumps {
		commit.DumpSize += d.Size
	}
	if kind == dump.Differential {
		m.Dumps = append(base, m.Dumps...)
	} else if commit.Base, err = json.Marshal(m.Dumps); err != nil {
		return err
	}
	m.Totals = remote.Totals{
		Files: totals.Files, Bytes: totals.Bytes,
		NewFiles: row.NewFiles, NewBytes: row.NewBytes, StoredBytes: row.StoredBytes,
	}
	m.Rows = remote.Rows{
		Volumes: totals.Volumes, Paths: totals.Paths, Files: totals.Files, Xattrs: totals.Xattrs,
		Contents: totals.Contents, FileChunks: totals.FileChunks,
		Chunks: totals.Chunks, Blobs: totals.Blobs, BlobChunks: totals.BlobChunks,
	}
	return nil
}

// bases looks for the base dumps of all sets. The parts of this set's base are
// returned, and those of the others pinned in the manifest. A base that is not
// in the store any more is forgotten: the next dump of its set is a full one.
func (w *writer) bases(ctx context.Context, m *remote.Manifest) (own []remote.DumpPart, err error) {
	base, others, err := w.run.Bases(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	if base != nil {
		if own, err = w.baseParts(ctx, *base); err != nil {
			return nil, err
		}
	}
	for _, b := range others {
		parts, err := w.baseParts(ctx, b)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			m.PinnedDumps = append(m.PinnedDumps, p.Object)
		}
	}
	slices.SortFunc(m.PinnedDumps, func(a, b remote.Object) int { return remote.CompareNames(a.Name(), b.Name()) })
	return own, nil
}

// baseParts returns the parts of a base that is in the store.
func (w *writer) baseParts(ctx context.Context, b index.Base) ([]remote.DumpPart, error) {
	var parts []remote.DumpPart
	if err := json.Unmarshal(b.Parts, &parts); err != nil {
		return nil, fmt.Errorf("the index's note of the base dump of set %q is damaged: %w", b.Set, err)
	}
	for _, p := range parts {
		key := remote.DumpKey(w.Writer, p.Seq, p.SHA256)
		there, err := w.exists(ctx, key, p.Size)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", key, err)
		}
		if !there {
			w.problem(Notice, "", fmt.Errorf("%s is not in the store as it was uploaded; "+
				"the metadata of set %q are stored whole again, and snapshots that are differences to them are lost", key, b.Set))
			return nil, w.run.DropBase(ctx, b.Set)
		}
	}
	return parts, nil
}

// dumpPart is one part of the dump in the making. It is compressed and
// encrypted by a goroutine of its own, while the index makes the next rows.
type dumpPart struct {
	*seal.Part
	ctx     context.Context
	w       *writer
	m       *remote.Manifest
	held    []byte      // statements, until they are a piece
	pieces  chan []byte // to be compressed
	free    chan []byte // come back
	worker  errgroup.Group
	stopped bool

	waiting atomic.Int64 // bytes given to be compressed and not compressed yet
	packed  atomic.Int64 // Part.Size after what is
}

// dumpPiece is about how many bytes of statements are compressed at once.
const dumpPiece = 512 << 10

func newDumpPart(ctx context.Context, w *writer, m *remote.Manifest) (*dumpPart, error) {
	part, err := seal.NewPart(w.recipients, w.Level)
	if err != nil {
		return nil, err
	}
	p := &dumpPart{Part: part, ctx: ctx, w: w, m: m, pieces: make(chan []byte, 1), free: make(chan []byte, 2)}
	p.worker.Go(p.work)
	return p, nil
}

// work compresses pieces; after an error it only lets them pass.
func (p *dumpPart) work() (err error) {
	for piece := range p.pieces {
		if err == nil {
			_, err = p.Part.Write(piece)
		}
		p.packed.Store(p.Part.Size()) // before it stops waiting, so that Full never counts too little
		p.waiting.Add(-int64(len(piece)))
		select {
		case p.free <- piece[:0]:
		default: // the end is near: nobody takes any more
		}
	}
	return err
}

// Write takes a statement, which stays the caller's.
func (p *dumpPart) Write(b []byte) (int, error) {
	if p.held == nil {
		select {
		case p.held = <-p.free:
		default:
			p.held = make([]byte, 0, dumpPiece+1<<20)
		}
	}
	if p.held = append(p.held, b...); len(p.held) >= dumpPiece {
		p.give()
	}
	return len(b), nil
}

func (p *dumpPart) give() {
	p.waiting.Add(int64(len(p.held)))
	p.pieces <- p.held
	p.held = nil
}

// Full says when the next statement, a megabyte at most, belongs elsewhere,
// should nothing of what is not compressed yet get smaller.
func (p *dumpPart) Full() bool {
	waiting := p.waiting.Load()
	return p.packed.Load()+waiting+int64(len(p.held))+1<<20 > partSize
}

// stop ends the goroutine.
func (p *dumpPart) stop() error {
	if !p.stopped {
		p.stopped = true
		close(p.pieces)
	}
	return p.worker.Wait()
}

// Close seals the part, puts it and names it in the manifest.
func (p *dumpPart) Close() error {
	p.give()
	if err := p.stop(); err != nil {
		return err
	}
	object, err := p.Part.Close()
	if err != nil {
		return err
	}
	o := remote.Object{Seq: p.m.Seq, SHA256: remote.Sum(object), Size: int64(len(object))}
	if err := p.w.putNamed(p.ctx, remote.DumpKey(p.m.Writer, o.Seq, o.SHA256), object); err != nil {
		return err
	}
	p.m.Dumps = append(p.m.Dumps, remote.DumpPart{Object: o, PlainSize: p.PlainSize()})
	return nil
}
