package index

import (
	"context"
	"database/sql"

	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
)

// Base names a full dump that this index exported, against which the set's next
// dumps may be differential.
type Base struct {
	Set   string
	Run   int64
	Parts []byte // what SetIntent was given
}

// base reads the set's base, nil if it has none that the run's recipients can
// read.
func (r *Run) base() (*snapshot.Base, error) {
	var b snapshot.Base
	var rows []byte
	found, err := r.x.db.Row("SELECT run, full_size, diff_size, rows FROM bases WHERE set_id = ? AND recipients = ?",
		[]any{r.set, r.recipients[:]}, &b.Run, &b.FullSize, &b.DiffSize, &rows)
	if err != nil || !found {
		return nil, err
	}
	return &b, b.Decode(rows)
}

// Bases returns the base of this run's set, nil if it has none that the run's
// recipients can read, and those of all other sets, which their next runs may
// refer to: the manifest has to pin them.
func (r *Run) Bases(ctx context.Context) (own *Base, others []Base, err error) {
	err = r.read(ctx, "look up the base dumps", func(x *Index) error {
		return x.db.Each(ctx, "SELECT s.name, s.id = ?, b.recipients = ?, b.run, b.parts FROM bases b JOIN sets s ON s.id = b.set_id ORDER BY s.id",
			[]any{r.set, r.recipients[:]}, func(scan func(...any) error) error {
				var b Base
				var ours, readable bool
				var parts sql.RawBytes
				if err := scan(&b.Set, &ours, &readable, &b.Run, &parts); err != nil {
					return err
				}
				b.Parts = []byte(parts)
				switch {
				case !ours:
					others = append(others, b)
				case readable:
					own = &b
				}
				return nil
			})
	})
	return own, others, err
}

// DropBase forgets a set's base, whose objects the store has lost: the set's
// next dump is a full one.
func (r *Run) DropBase(ctx context.Context, set string) error {
	return r.write(ctx, "drop a base dump", func(x *Index) error {
		_, _, err := x.db.Exec("DELETE FROM bases WHERE set_id = (SELECT id FROM sets WHERE name = ?)", set)
		r.references = nil
		if err != nil {
			return err
		}
		return x.soil()
	})
}

// setBase makes the run's full dump the set's base, or adds a differential one
// to what its base has cost.
func (r *Run) setBase(f *snapshot.Contents, c Commit) error {
	if c.Base == nil {
		_, _, err := r.x.db.Exec("UPDATE bases SET diff_size = diff_size + ? WHERE set_id = ?", c.DumpSize, r.set)
		return err
	}
	rows, err := f.Rows.Encode()
	if err != nil {
		return err
	}
	// What only the base before has may be kept by nothing else any more.
	var outlived bool
	_, err = r.x.db.Row("SELECT EXISTS (SELECT 1 FROM bases b JOIN forgotten f ON f.seq = b.run WHERE b.set_id = ?)", []any{r.set}, &outlived)
	if err == nil && outlived {
		err = r.x.soil()
	}
	if err != nil {
		return err
	}
	_, _, err = r.x.db.Exec("INSERT OR REPLACE INTO bases VALUES (?, ?, ?, ?, ?, 0, ?)",
		r.set, r.seq, r.recipients[:], c.Base, c.DumpSize, rows)
	return err
}
