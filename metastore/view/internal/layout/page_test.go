package layout

import (
	"bytes"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
)

func TestPagesAreFullButNotFuller(t *testing.T) {
	var b PageBuilder
	e := Entry{Name: bytes.Repeat([]byte{'n'}, 255), File: AppendFile(nil, &metastore.File{Stat: metastore.Stat{Type: metastore.Regular}, Role: metastore.RoleInside, State: metastore.StateComplete})}
	n := 0
	for b.Add(&e) {
		n++
	}
	page := b.AppendTo(nil)
	if len(page) > pageSize || len(page) < pageSize-400 || n < 100 {
		t.Errorf("%d entries make %d bytes", n, len(page))
	}
	big := Entry{Name: []byte("n"), File: bytes.Repeat([]byte{1}, 2*pageSize)}
	if !b.Add(&big) {
		t.Error("an entry that no page could hold has no place of its own")
	}
	if b.Add(&e) {
		t.Error("something fits beside it")
	}
}
