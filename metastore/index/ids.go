package index

import (
	"context"
	"fmt"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// ids are the last ids given out of the tables with many rows.
type ids struct {
	paths, files, contents, chunks int64
}

// next gives out an id.
func next(last *int64) int64 {
	*last++
	return *last
}

// byName finds a table's last id.
func (i *ids) byName(name string) *int64 {
	switch name {
	case "paths":
		return &i.paths
	case "files":
		return &i.files
	case "contents":
		return &i.contents
	case "chunks":
		return &i.chunks
	}
	return nil
}

// loadIDs reads the ids given out by earlier processes.
func (x *Index) loadIDs(ctx context.Context) error {
	rows, err := x.db.Conn.QueryContext(ctx, "SELECT name, last FROM ids")
	if err != nil {
		return err
	}
	n := 0
	err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
		var name string
		var last int64
		if err := scan(&name, &last); err != nil {
			return err
		}
		at := x.last.byName(name)
		if at == nil {
			return fmt.Errorf("%w: it counts ids of %q", ErrDamaged, name)
		}
		n++
		*at = last
		return nil
	})
	if err == nil && n != 4 {
		err = fmt.Errorf("%w: it counts ids of %d tables", ErrDamaged, n)
	}
	x.saved = x.last
	return err
}

// saveIDs writes down which ids were given out since the last commit.
func (x *Index) saveIDs() error {
	if x.last == x.saved {
		return nil
	}
	for _, name := range [...]string{"paths", "files", "contents", "chunks"} {
		if _, _, err := x.db.Exec("UPDATE ids SET last = ? WHERE name = ?", *x.last.byName(name), name); err != nil {
			return err
		}
	}
	x.saved = x.last
	return nil
}
