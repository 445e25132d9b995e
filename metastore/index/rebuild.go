package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Rebuilding is an index in the making, out of what a store still has: it will
// be as if the writer's retained snapshots were the only ones that it ever
// made. Give it their runs by Add, oldest first, then Finish.
//
// What no dump says is lost: marks, so that the next run lists every folder;
// base dumps, so that its dump is a full one; and contents that are in blobs
// but in no retained snapshot. It is a new generation of the index: its ids are
// not those of the dumps that it was made from.
type Rebuilding struct {
	x    *Index
	path string // where it will be
	last int64  // run added last
}

// Past is a committed run, as its manifest has it.
type Past struct {
	Seq        int64
	Set        string
	SnapshotID string
	Started    metastore.Time
	Hash       [32]byte // SHA-256 of the manifest's object
}

// Rebuilt says what an index was rebuilt from, and to.
type Rebuilt struct {
	Runs    int64 // retained ones
	Entries int64 // that the newest snapshots of all sets show
	Blobs   int64 // that the next run may refer to
	Bytes   int64 // of them
}

// rebuildSuffix is what follows an index's name while it is being rebuilt.
const rebuildSuffix = ".rebuilding"

// Rebuild begins an index that is to be at path, which must be free when
// it is finished. What an interrupted one left is removed; nobody else may be at
// work. Close it in any case.
func Rebuild(ctx context.Context, path, writer string, o Options) (*Rebuilding, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("rebuild index %q: %w", path, err)
	}
	if err := removeDatabase(path + rebuildSuffix); err != nil {
		return nil, fmt.Errorf("rebuild index %q: %w", path, err)
	}
	x, err := Create(ctx, path+rebuildSuffix, writer, o)
	if err != nil {
		return nil, err
	}
	return &Rebuilding{x: x, path: path}, nil
}

// removeDatabase removes a database and what SQLite keeps beside it.
func removeDatabase(path string) error {
	for _, p := range []string{path, path + "-wal", path + "-shm", path + "-journal"} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close gives an unfinished index up, and does nothing to a finished one.
func (b *Rebuilding) Close() error {
	if b.x == nil {
		return nil
	}
	err := b.x.Close()
	b.x = nil
	return errors.Join(err, removeDatabase(b.path+rebuildSuffix))
}

// Add adds a run that is newer than those added before. v shows its snapshot;
// without it (nil: its metadata are lost) only the run is known, and its set's
// history goes on with the next one.
//
// If Add fails, the Rebuilding is of no use but for Close.
func (b *Rebuilding) Add(ctx context.Context, p Past, v *view.View) error {
	if p.Seq <= b.last {
		return fmt.Errorf("rebuild index %q: run %d does not follow run %d", b.path, p.Seq, b.last)
	}
	b.last = p.Seq
	if v != nil {
		p.Started = v.Snapshot().Started // to the nanosecond
	}
	r, err := b.begin(p)
	if err == nil && v != nil {
		err = replay(ctx, r, v)
	}
	if err == nil {
		err = b.end(r)
	}
	if err != nil {
		return fmt.Errorf("rebuild index %q: run %d: %w", b.path, p.Seq, err)
	}
	return nil
}

// begin makes a run like the one that was committed.
func (b *Rebuilding) begin(p Past) (*Run, error) {
	x := b.x
	x.mu.Lock()
	defer x.mu.Unlock()
	r := &Run{x: x, seq: p.Seq, held: newBulks()}
	x.run = r
	found, err := x.db.Row("SELECT id FROM sets WHERE name = ?", []any{p.Set}, &r.set)
	if err == nil && !found {
		r.set, _, err = x.db.Exec("INSERT INTO sets (name) VALUES (?)", p.Set)
	}
	if err != nil {
		return nil, err
	}
	_, _, err = x.db.Exec(`INSERT INTO runs (seq, set_id, snapshot, started_s, started_ns, recipients, first_content, state, hash)
		VALUES (?, ?, ?, ?, ?, ?, ?, 'committed', ?)`,
		p.Seq, r.set, p.SnapshotID, p.Started.Sec, p.Started.Nsec, r.recipients[:], x.last.contents+1, p.Hash[:])
	return r, err
}

// end ends a run. Its recipients are those of the last blob it uploaded or
// refers to: manifests name them one by one, not the set.
func (b *Rebuilding) end(r *Run) error {
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	if err := r.commit(); err != nil {
		return err
	}
	_, _, err := b.x.db.Exec("UPDATE runs SET recipients = ? WHERE seq = ?", r.recipients[:], r.seq)
	if err == nil {
		err = b.x.db.Commit()
	}
	r.end()
	return err
}

// Finish puts the index in its place. live are the blobs that the newest
// manifest refers to or pins: the only ones that the next run may count on.
// lists is what the next run's [Index.LastLists] returns.
func (b *Rebuilding) Finish(ctx context.Context, live []metastore.BlobRef, lists []byte) (_ Rebuilt, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rebuild index %q: %w", b.path, err)
		}
	}()
	made, err := b.settle(ctx, live, lists)
	if err != nil {
		return made, err
	}
	err = b.x.Close()
	b.x = nil
	if err != nil {
		return made, errors.Join(err, removeDatabase(b.path+rebuildSuffix))
	}
	temp := b.path + rebuildSuffix
	// Closing brings the log into the database; where it could not, as on a full
	// disk, the one is not complete without the other.
	if log, err := os.Stat(temp + "-wal"); err == nil && log.Size() > 0 {
		return made, errors.Join(fmt.Errorf("%q still has %d bytes of log: is the disk full, or is somebody else at work on it?", temp, log.Size()), removeDatabase(temp))
	}
	// Unlike a rename, a link never replaces what came to be there meanwhile.
	if err := os.Link(temp, b.path); err != nil {
		return made, errors.Join(err, removeDatabase(temp))
	}
	return made, errors.Join(removeDatabase(temp), syncFolder(filepath.Dir(b.path)))
}

func (b *Rebuilding) settle(ctx context.Context, live []metastore.BlobRef, lists []byte) (made Rebuilt, err error) {
	type name struct {
		seq  int64
		hash [32]byte
	}
	counted := make(map[name]bool, len(live))
	for _, l := range live {
		counted[name{l.Seq, l.Hash}] = true
	}
	x := b.x
	x.mu.Lock()
	defer x.mu.Unlock()
	return made, x.db.Durably(func() error {
		var ended []int64
		err := x.db.Each(ctx, "SELECT id, seq, hash, size FROM blobs", nil, func(scan func(...any) error) error {
			var id, size int64
			var n name
			var hash []byte
			if err := scan(&id, &n.seq, &hash, &size); err != nil {
				return err
			}
			copy(n.hash[:], hash)
			if !counted[n] {
				ended = append(ended, id)
				return nil
			}
			made.Blobs++
			made.Bytes += size
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range ended {
			// What the newest run does not count on may have been deleted since.
			if _, _, err := x.db.Exec("UPDATE blobs SET end_run = max(?, seq + 1) WHERE id = ?", b.last+1, id); err != nil {
				return err
			}
		}
		if _, _, err := x.db.Exec("UPDATE runs SET lists = ? WHERE seq = ?", lists, b.last); err != nil {
			return err
		}
		if _, err := x.db.Row("SELECT count(*) FROM runs", nil, &made.Runs); err != nil {
			return err
		}
		_, err = x.db.Row("SELECT count(*) FROM files WHERE end_run IS NULL", nil, &made.Entries)
		return err
	})
}

// Verify reads the whole index and fails with ErrDamaged if SQLite finds
// anything wrong with it.
func (x *Index) Verify(ctx context.Context) error {
	return x.look(ctx, "all of it", func() error { return x.quickCheck(ctx) })
}
