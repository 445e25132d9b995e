package metastore

import (
	"context"
	"fmt"
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
func (s *session) loadIDs(ctx context.Context) error {
	rows, err := s.conn.QueryContext(ctx, "SELECT name, last FROM ids")
	if err != nil {
		return err
	}
	n := 0
	err = eachRow(ctx, rows, func(scan func(...any) error) error {
		var name string
		var last int64
		if err := scan(&name, &last); err != nil {
			return err
		}
		at := s.last.byName(name)
		if at == nil {
			return fmt.Errorf("%w: it counts ids of %q", ErrIndexDamaged, name)
		}
		n++
		*at = last
		return nil
	})
	if err == nil && n != 4 {
		err = fmt.Errorf("%w: it counts ids of %d tables", ErrIndexDamaged, n)
	}
	s.saved = s.last
	return err
}

// saveIDs writes down which ids were given out since the last commit.
func (s *session) saveIDs() error {
	if s.last == s.saved {
		return nil
	}
	for _, name := range [...]string{"paths", "files", "contents", "chunks"} {
		if _, _, err := s.exec("UPDATE ids SET last = ? WHERE name = ?", *s.last.byName(name), name); err != nil {
			return err
		}
	}
	s.saved = s.last
	return nil
}
