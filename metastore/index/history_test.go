package index

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index/clean"
	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// model is what an index should know, kept in the plainest way: one map of
// everything for every snapshot.
type model struct {
	bases    map[string][]*memoryPart // by set
	sets     map[string]*modelSet
	contents map[int64][]ContentChunk
	blobs    []*modelBlob
	done     []modelSnapshot
	last     int64 // the newest run
}

type modelSet struct {
	open  map[string]modelVersion
	marks map[string][16]byte
}

type modelVersion struct {
	file    metastore.File
	recheck bool
}

type modelBlob struct {
	seq        int64
	hash       [32]byte
	chunks     []string
	recipients [32]byte
	live       bool
	retired    bool
	unsure     bool // found lost in a transaction that is not committed
}

type modelSnapshot struct {
	seq  int64
	set  string
	show map[string]metastore.File
	refs []metastore.BlobRef
}

func (s *modelSet) clone() *modelSet {
	return &modelSet{maps.Clone(s.open), maps.Clone(s.marks)}
}

func isBelow(p, dir string) bool {
	return p != dir && (dir == "/" || strings.HasPrefix(p, dir+"/"))
}

func (s *modelSet) closeBelow(dir string, gaps map[string]metastore.File) (n int) {
	for p := range s.open {
		if isBelow(p, dir) {
			delete(s.open, p)
			n++
		}
	}
	maps.DeleteFunc(gaps, func(p string, _ metastore.File) bool { return isBelow(p, dir) })
	maps.DeleteFunc(s.marks, func(p string, _ [16]byte) bool { return p == dir || isBelow(p, dir) })
	return n
}

// show is what a snapshot shows of a set with these gaps.
func (s *modelSet) show(gaps map[string]metastore.File) map[string]metastore.File {
	show := map[string]metastore.File{}
	for p, v := range s.open {
		show[p] = v.file
	}
	for p, f := range gaps {
		show[p] = f
	}
	for gap := range gaps {
		maps.DeleteFunc(show, func(p string, _ metastore.File) bool { return isBelow(p, gap) })
	}
	return show
}

// best is the blob that a chunk is read from.
func (m *model) best(chunk string, recipients [32]byte) *modelBlob {
	var best *modelBlob
	for _, b := range m.blobs { // in the order of upload
		if !b.live || !slices.Contains(b.chunks, chunk) {
			continue
		}
		rank := func(b *modelBlob) int {
			n := 0
			if b.recipients == recipients {
				n += 2
			}
			if !b.retired {
				n++
			}
			return n
		}
		if best == nil || rank(b) >= rank(best) {
			best = b
		}
	}
	return best
}

// stored reports whether a chunk need not be uploaded.
func (m *model) stored(chunk string, recipients [32]byte, spread bool) bool {
	return slices.ContainsFunc(m.blobs, func(b *modelBlob) bool {
		return b.live && !b.retired && slices.Contains(b.chunks, chunk) && (spread || b.recipients == recipients)
	})
}

// needs are the blobs that files need, and the paths of those that lack one.
func (m *model) needs(files map[string]metastore.File, plain map[int64]string, recipients [32]byte, spread bool) (blobs map[*modelBlob]bool, missing []string) {
	blobs = map[*modelBlob]bool{}
	for p, f := range files {
		lost := false
		for _, c := range m.contents[f.Content] {
			if c.Chunk == 0 {
				continue
			}
			b := m.best(plain[c.Chunk], recipients)
			if b != nil {
				blobs[b] = true
			}
			lost = lost || b == nil || !spread && b.recipients != recipients
		}
		if lost {
			missing = append(missing, p)
		}
	}
	slices.Sort(missing)
	return blobs, missing
}

func refsOf(blobs map[*modelBlob]bool) []metastore.BlobRef {
	refs := []metastore.BlobRef{}
	for b := range blobs {
		refs = append(refs, metastore.BlobRef{Seq: b.seq, Hash: b.hash, Size: 1000})
	}
	sortRefs(refs)
	return refs
}

func sortRefs(refs []metastore.BlobRef) {
	slices.SortFunc(refs, func(a, b metastore.BlobRef) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), bytes.Compare(a.Hash[:], b.Hash[:]))
	})
}

type querier interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// readFiles reads versions and all that belongs to them, by their full paths,
// which paths knows.
func readFiles(t testing.TB, db, paths querier, query string, args ...any) map[string]metastore.File {
	t.Helper()
	each := func(db querier, query string, args []any, f func(scan func(...any) error) error) {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), query, args...)
		if err == nil {
			err = sqlite.EachRow(t.Context(), rows, f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	type place struct {
		parent int64
		name   string
	}
	places := map[int64]place{}
	each(paths, "SELECT id, parent, name FROM paths", nil, func(scan func(...any) error) error {
		var id int64
		var p place
		err := scan(&id, &p.parent, &p.name)
		places[id] = p
		return err
	})
	xattrs := map[int64][]metastore.Xattr{}
	each(db, "SELECT file, name, value FROM xattrs ORDER BY file, name", nil, func(scan func(...any) error) error {
		var id int64
		var x metastore.Xattr
		err := scan(&id, &x.Name, &x.Value)
		xattrs[id] = append(xattrs[id], x)
		return err
	})
	files := map[string]metastore.File{}
	each(db, query, args, func(scan func(...any) error) error {
		var v Version
		if err := scanVersion(scan, &v); err != nil {
			return err
		}
		where := ""
		for id := v.Path; id != 1; id = places[id].parent {
			if places[id].name == "" {
				return fmt.Errorf("path %d is not there", id)
			}
			where = "/" + places[id].name + where
		}
		if where == "" {
			where = "/"
		}
		if _, twice := files[where]; twice {
			return fmt.Errorf("%s is there twice", where)
		}
		v.File.Xattrs = xattrs[v.Row]
		files[where] = v.File
		return nil
	})
	return files
}

// modelPaths are where things happen; "/" comes and goes like any other.
var modelPaths = []string{"/", "/a", "/a/b", "/a/b/c", "/a/b/d", "/e", "/e/f", "/g"}

func drawFile(t *rapid.T) metastore.File {
	f := metastore.File{
		Stat:  metastore.Stat{Type: rapid.SampledFrom([]metastore.Type{metastore.Directory, metastore.Directory, metastore.Regular, metastore.Symlink}).Draw(t, "type"), Mode: 0o644, Nlink: 1, Inode: rapid.SampledFrom([]uint64{1, 2, 1<<63 + 1}).Draw(t, "inode")},
		Role:  rapid.SampledFrom([]metastore.Role{metastore.RoleRoot, metastore.RoleInside}).Draw(t, "role"),
		State: metastore.StateComplete, User: "ann",
	}
	if f.Type == metastore.Symlink {
		f.Target = "there"
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "attributes") {
		f.Xattrs = append(f.Xattrs, metastore.Xattr{Name: fmt.Sprintf("user.%d", i), Value: []byte(rapid.SampledFrom([]string{"", "x"}).Draw(t, "value"))})
	}
	return f
}

// However runs of two sets go and end, every snapshot shows for ever what the
// model says, in the index and in its dump; and the index counts on exactly
// the blobs that it should.
func TestHistoryEqualsAModel(t *testing.T) {
	folder := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(folder, fmt.Sprintf("%d.db", n))
		x, err := Create(t.Context(), path, "ann", Options{})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { x.Close() }()
		m := &model{sets: map[string]*modelSet{}, contents: map[int64][]ContentChunk{}, bases: map[string][]*memoryPart{}}
		for _, set := range []string{"home", "etc"} {
			m.sets[set] = &modelSet{map[string]modelVersion{}, map[string][16]byte{}}
		}
		for i := range rapid.IntRange(2, 9).Draw(rt, "runs") {
			x = m.run(t, rt, x, i)
		}
	})
}

// run does one run of some set, with some end, and returns the index.
func (m *model) run(t *testing.T, rt *rapid.T, x *Index, number int) *Index {
	ctx := t.Context()
	must := func(err error) {
		rt.Helper()
		if err != nil {
			rt.Fatal(err)
		}
	}
	equal := func(what string, want, got any) {
		rt.Helper()
		if diff := gocmp.Diff(want, got); diff != "" {
			rt.Fatalf("%s: %s", what, diff)
		}
	}
	name := rapid.SampledFrom([]string{"home", "etc"}).Draw(rt, "set")
	recipients := rapid.SampledFrom([][32]byte{ours, ours, others}).Draw(rt, "recipients")
	m.purge(t, rt, x)
	spread := rapid.IntRange(0, 3).Draw(rt, "spread") == 0
	r, err := x.Begin(ctx, RunInfo{Set: name, SnapshotID: fmt.Sprintf("ann-%d", number), Recipients: recipients, Spread: spread})
	must(err)
	equal("seq", m.last+1, r.Seq())

	before := m.sets[name]
	s := before.clone()
	flagged := map[string][]bool{} // whether to read again what was there, as it was said anew
	gaps := map[string]metastore.File{}
	paths := map[string]int64{}
	for _, p := range modelPaths {
		paths[p] = at(t, r, p)
	}
	// Marks are only dropped too early: take over the ones that are left.
	for p := range s.marks {
		d, err := r.Directory(ctx, parentOf(p, paths), baseOf(p))
		must(err)
		if !d.Marked {
			delete(s.marks, p)
		} else {
			equal("mark of "+p, s.marks[p], d.Mark)
		}
	}
	// W2: stored is what a live blob of the current recipients has.
	plain := map[int64]string{}
	chunk := func(name string) int64 {
		id, stored, err := r.Chunk(ctx, sha256.Sum256([]byte(name)), 10)
		must(err)
		plain[id] = name
		equal("chunk "+name+" is stored", m.stored(name, recipients, spread), stored)
		return id
	}
	chunkNames := []string{"one", "two", "three", "four"}
	for _, c := range chunkNames {
		chunk(c)
	}
	foreign := !spread && slices.ContainsFunc(m.blobs, func(b *modelBlob) bool { return b.live && b.recipients != recipients })
	for p, v := range s.open {
		got, found, err := r.Open(ctx, paths[p])
		must(err)
		stale := foreign && slices.ContainsFunc(m.contents[v.file.Content], func(c ContentChunk) bool {
			if c.Chunk == 0 {
				return false
			}
			b := m.best(plain[c.Chunk], recipients)
			return b == nil || b.recipients != recipients
		})
		equal(p+" is open", true, found)
		equal(p+" is to be read again", v.recheck || stale, got.Recheck)
	}

	for range rapid.IntRange(0, 14).Draw(rt, "steps") {
		p := rapid.SampledFrom(modelPaths).Draw(rt, "path")
		old, found := s.open[p]
		switch rapid.SampledFrom([]string{"record", "record", "record", "again", "close", "gap", "mark", "clear", "add", "add", "lose", "dump"}).Draw(rt, "step") {
		case "record":
			f := drawFile(rt)
			if f.Type == metastore.Regular {
				var chunks []ContentChunk
				for range rapid.IntRange(0, 3).Draw(rt, "chunks") {
					c := ContentChunk{Offset: f.Size, Length: 10}
					if i := rapid.IntRange(0, 4).Draw(rt, "chunk"); i > 0 {
						c.Chunk = chunk(chunkNames[i-1])
					}
					chunks = append(chunks, c)
					f.Size += 10
				}
				f.Content, err = r.Content(ctx, chunks, old.file.Content)
				must(err)
				if same := found && old.file.Content != 0 && slices.Equal(m.contents[old.file.Content], chunks); same != (f.Content == old.file.Content) {
					rt.Fatalf("content %d of %v became %d of %v", old.file.Content, m.contents[old.file.Content], f.Content, chunks)
				}
				m.contents[f.Content] = chunks
			}
			recheck := rapid.Bool().Draw(rt, "recheck")
			changed, err := r.Record(ctx, paths[p], f, recheck)
			must(err)
			equal("changed", !found || !gocmp.Equal(old.file, f), changed)
			if !changed {
				flagged[p] = append(flagged[p], recheck)
			}
			delete(gaps, p)
			if found && old.file.Type == metastore.Directory && f.Type != metastore.Directory {
				s.closeBelow(p, gaps)
			}
			s.open[p] = modelVersion{f, recheck}
		case "again":
			if !found {
				continue
			}
			changed, err := r.Record(ctx, paths[p], old.file, old.recheck)
			must(err)
			equal("changed", false, changed)
			delete(gaps, p)
		case "close":
			n, err := r.Close(ctx, paths[p])
			must(err)
			delete(gaps, p)
			want := 0
			if !found || old.file.Type == metastore.Directory {
				want = s.closeBelow(p, gaps)
			}
			if found {
				want++
				delete(s.open, p)
			}
			equal("closed", want, n)
		case "gap":
			f := drawFile(rt)
			must(r.Gap(ctx, paths[p], f, 13))
			f.State, f.Errno = metastore.StateUnreadable, 13
			gaps[p] = f
			delete(s.marks, p)
			for other := range s.marks {
				if paths[other] == parentOf(p, paths) {
					delete(s.marks, other)
				}
			}
		case "mark":
			mark := [16]byte{byte(rapid.IntRange(1, 2).Draw(rt, "mark"))}
			must(r.SetMark(ctx, paths[p], mark))
			s.marks[p] = mark
		case "clear":
			must(r.ClearMark(ctx, paths[p]))
			delete(s.marks, p)
		case "add":
			b := &modelBlob{seq: r.Seq(), recipients: recipients, live: true}
			b.hash = sha256.Sum256(fmt.Append(nil, number, len(m.blobs)))
			var rows []BlobChunk
			for _, c := range chunkNames {
				if rapid.Bool().Draw(rt, c) {
					b.chunks = append(b.chunks, c)
					rows = append(rows, BlobChunk{chunk(c), 100, 50, int64(len(rows) * 10), 10})
				}
			}
			must(r.AddBlob(ctx, Blob{Hash: b.hash, Size: 1000, Header: 200}, rows))
			for _, b := range m.blobs {
				b.unsure = false
			}
			m.blobs = append(m.blobs, b)
		case "lose":
			if len(m.blobs) == 0 {
				continue
			}
			b := rapid.SampledFrom(m.blobs).Draw(rt, "blob")
			must(r.LoseBlob(ctx, b.seq, b.hash))
			b.unsure = b.unsure || b.live
			b.live = false
		case "dump":
			equal("dump in between", s.show(gaps), dumpFiles(t, r))
			for _, b := range m.blobs {
				b.unsure = false // a dump commits
			}
		}
	}

	end := rapid.SampledFrom([]string{"commit", "commit", "commit", "confirm later", "rollback", "crash"}).Draw(rt, "end")
	if end == "rollback" || end == "crash" {
		if end == "rollback" {
			must(r.Rollback(ctx))
		} else {
			x = reopen(t, x, Options{})
			must(x.Rollback(ctx))
		}
		for _, b := range m.blobs {
			b.live, b.unsure = b.live || b.unsure, false
		}
		// What was said of a version that is still there may stay.
		for p, v := range before.open {
			var got bool
			_, err := x.db.Row(`SELECT recheck FROM files WHERE set_id = (SELECT id FROM sets WHERE name = ?) AND path = ? AND end_run IS NULL`,
				[]any{name, paths[p]}, &got)
			must(errors.Join(err, x.finish()))
			if got != v.recheck && !slices.Contains(flagged[p], got) {
				rt.Fatalf("%s is to be read again: %t, which nobody said", p, got)
			}
			before.open[p] = modelVersion{v.file, got}
		}
		// Marks that the run set over others are gone with them.
		maps.DeleteFunc(before.marks, func(p string, mark [16]byte) bool { return s.marks[p] != mark })
		m.check(t, equal, x)
		return x
	}

	show := s.show(gaps)
	shown := map[string]metastore.File{} // what gaps hide is pinned only
	maps.Copy(shown, show)
	refs, missing := m.needs(shown, plain, recipients, spread)
	files, err := r.Missing(ctx)
	must(err)
	got := []string{}
	for _, f := range files {
		got = append(got, "/"+strings.Join(f.Components, "/"))
	}
	slices.Sort(got)
	equal("missing", append([]string{}, missing...), got)

	pins := map[*modelBlob]bool{}
	for set, other := range m.sets {
		if set == name {
			other = s
		}
		open := map[string]metastore.File{}
		for p, v := range other.open {
			open[p] = v.file
		}
		needs, _ := m.needs(open, plain, recipients, spread)
		maps.Copy(pins, needs)
	}
	for _, b := range m.blobs {
		b.unsure = false
		if b.live && b.seq == r.Seq() {
			pins[b] = true
		}
	}
	maps.DeleteFunc(pins, func(b *modelBlob, _ bool) bool { return refs[b] })
	base := m.compareDumps(t, rt, r, equal, name, show)
	gotRefs, gotPins, err := r.References(ctx)
	must(err)
	equal("refs", refsOf(refs), append([]metastore.BlobRef{}, gotRefs...))
	equal("pins", refsOf(pins), append([]metastore.BlobRef{}, gotPins...))
	must(r.SetIntent(ctx, Commit{Manifest: []byte("m"), Signature: []byte("s"), Hash: [32]byte{byte(number)}, Base: base, DumpSize: 1 << 20}))
	if end == "confirm later" {
		x = reopen(t, x, Options{})
	}
	must(x.Confirm(ctx, r.Seq()))

	for _, b := range m.blobs {
		b.live = refs[b] || pins[b]
	}
	m.sets[name] = s
	m.last = r.Seq()
	m.done = append(m.done, modelSnapshot{r.Seq(), name, show, refsOf(refs)})
	m.check(t, equal, x)
	return x
}

// purge forgets some snapshots, retires some blobs and cleans up, a few rows at
// a time: what is kept stays as it is, and nothing else is left.
func (m *model) purge(t *testing.T, rt *rapid.T, x *Index) {
	t.Helper()
	must := func(err error) {
		rt.Helper()
		if err != nil {
			rt.Fatal(err)
		}
	}
	equal := func(what string, want, got any) {
		rt.Helper()
		if diff := gocmp.Diff(want, got); diff != "" {
			rt.Fatalf("%s: %s", what, diff)
		}
	}
	for _, b := range m.blobs {
		if b.live && rapid.IntRange(0, 5).Draw(rt, "retire") == 0 {
			b.retired = true
			must(x.db.Whole(func() error {
				_, _, err := x.db.Exec("UPDATE blobs SET retired = coalesce(retired, ?) WHERE seq = ? AND hash = ?", m.last+1, b.seq, b.hash[:])
				return err
			}))
		}
	}
	var gone []int64
	m.done = slices.DeleteFunc(m.done, func(s modelSnapshot) bool {
		forget := s.seq != m.last && rapid.IntRange(0, 2).Draw(rt, "forget") == 0
		if forget {
			gone = append(gone, s.seq)
		}
		return forget
	})
	var closed []string
	for _, set := range []string{"etc", "home"} {
		has := func(s modelSnapshot) bool { return s.set == set }
		var known bool
		found, err := x.db.Row("SELECT 1 FROM sets WHERE name = ?", []any{set}, &known)
		must(errors.Join(err, x.finish()))
		if found && len(gone) > 0 && !slices.ContainsFunc(m.done, has) {
			closed = append(closed, set)
			m.sets[set] = &modelSet{map[string]modelVersion{}, map[string][16]byte{}}
			delete(m.bases, set)
		}
	}
	got, err := x.Forget(t.Context(), gone)
	must(err)
	equal("closed sets", closed, got)
	m.check(t, equal, x)
	if rapid.Bool().Draw(rt, "clean") {
		must(x.db.Whole(x.soil)) // what rollbacks left goes, too
		for limit := int64(rapid.IntRange(1, 40).Draw(rt, "rows")); ; {
			done, err := x.Clean(t.Context(), clean.Limits{Rows: limit})
			must(err)
			m.check(t, equal, x)
			if !done.More {
				break
			}
		}
		leftovers(rt, x)
	}
}

// leftovers says what a clean index does not have, as SQL.
func leftovers(rt *rapid.T, x *Index) {
	rt.Helper()
	var base idset.Rows
	rows, err := x.db.Conn.QueryContext(context.Background(), "SELECT rows FROM bases")
	if err == nil {
		err = sqlite.EachRow(context.Background(), rows, func(scan func(...any) error) error {
			var packed []byte
			if err := scan(&packed); err != nil {
				return err
			}
			var b idset.Rows
			if err := b.Decode(packed); err != nil {
				return err
			}
			for i, set := range base.Sets() {
				set.Merge(*b.Sets()[i])
			}
			return nil
		})
	}
	if err != nil {
		rt.Fatal(err)
	}
	for what, q := range map[string]struct {
		query string
		base  idset.Set
	}{
		"files": {`SELECT id FROM files f WHERE NOT (end_run IS NULL AND set_id IN (SELECT id FROM sets) OR EXISTS (
			SELECT 1 FROM runs r WHERE r.set_id = f.set_id AND r.seq >= f.first_run AND r.seq < f.end_run))`, base.Files},
		"xattrs":      {"SELECT file FROM xattrs WHERE file NOT IN (SELECT id FROM files)", base.Files},
		"contents":    {"SELECT id FROM contents WHERE id NOT IN (SELECT content FROM files WHERE content IS NOT NULL)", base.Contents},
		"file_chunks": {"SELECT content FROM file_chunks WHERE content NOT IN (SELECT id FROM contents)", nil},
		"blobs": {`SELECT id FROM blobs b WHERE end_run IS NOT NULL AND NOT EXISTS (
			SELECT 1 FROM runs r WHERE r.seq >= b.seq AND r.seq < b.end_run)`, base.Live},
		"blob_chunks": {"SELECT blob FROM blob_chunks WHERE blob NOT IN (SELECT id FROM blobs) OR chunk NOT IN (SELECT id FROM chunks)", nil},
		"chunks": {`SELECT id FROM chunks WHERE id NOT IN (SELECT chunk FROM file_chunks WHERE chunk IS NOT NULL)
			AND id NOT IN (SELECT l.chunk FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE b.end_run IS NULL)`, base.Chunks},
		"prefixes": {"SELECT chunk FROM prefixes WHERE chunk NOT IN (SELECT id FROM chunks)", nil},
		"paths": {`SELECT id FROM paths WHERE id <> 1 AND id NOT IN (
			WITH RECURSIVE t (id) AS (SELECT path FROM files UNION SELECT path FROM marks UNION SELECT p.parent FROM t JOIN paths p ON p.id = t.id) SELECT id FROM t)`, base.Paths},
		"gaps": {"SELECT file FROM gaps WHERE run NOT IN (SELECT seq FROM runs)", nil},
	} {
		rows, err := x.db.Conn.QueryContext(context.Background(), q.query)
		if err == nil {
			err = sqlite.EachRow(context.Background(), rows, func(scan func(...any) error) error {
				var id int64
				err := scan(&id)
				if err == nil && !q.base.Has(id) {
					err = fmt.Errorf("row %d of %s is left", id, what)
				}
				return err
			})
		}
		if err != nil {
			rt.Fatal(err)
		}
	}
}

// check compares every snapshot that is kept.
func (m *model) check(t *testing.T, equal func(string, any, any), x *Index) {
	t.Helper()
	for _, s := range m.done {
		equal(fmt.Sprintf("snapshot %d", s.seq), s.show,
			readFiles(t, x.db.Conn, x.db.Conn, "SELECT "+versionColumns+" FROM snapshot_files f WHERE run = ?", s.seq))
		refs := []metastore.BlobRef{}
		rows, err := x.db.Conn.QueryContext(t.Context(), "SELECT b.seq, b.hash, b.size FROM snapshot_blobs s JOIN blobs b ON b.id = s.blob WHERE s.run = ?", s.seq)
		if err == nil {
			err = sqlite.EachRow(t.Context(), rows, func(scan func(...any) error) error {
				var b metastore.BlobRef
				var hash []byte
				err := scan(&b.Seq, &hash, &b.Size)
				copy(b.Hash[:], hash)
				refs = append(refs, b)
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		sortRefs(refs)
		equal(fmt.Sprintf("blobs of snapshot %d", s.seq), s.refs, refs)
	}
}

func parentOf(p string, paths map[string]int64) int64 {
	if p == "/" {
		return 0
	}
	return paths[filepath.Dir(p)]
}

func baseOf(p string) string {
	if p == "/" {
		return ""
	}
	return filepath.Base(p)
}

// compareDumps dumps the run's snapshot, loads it, and compares its files. The
// model records entries without their parents, so it asks the index for paths.
// If there is a base, a differential dump against it must make the same
// database. It returns what to commit as the new base, if that shall be one.
func (m *model) compareDumps(t *testing.T, rt *rapid.T, r *Run, equal func(string, any, any), set string, show map[string]metastore.File) []byte {
	t.Helper()
	full := dumpAs(t, r, dump.Full)
	db := loadDump(t, full)
	equal("dump", show, readFiles(t, db, r.x.db.Conn, "SELECT id, path, 0, 0, "+fileColumns+" FROM files"))
	own, _, err := r.Bases(t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	if own != nil {
		loaded := loadDump(t, append(slices.Clone(m.bases[set]), dumpAs(t, r, dump.Differential)...))
		equal("differential dump", tablesOf(t, db), tablesOf(t, loaded))
	}
	if !rapid.Bool().Draw(rt, "new base") {
		return nil
	}
	m.bases[set] = full
	return []byte("its parts")
}

// dumpFiles dumps the run's snapshot, loads it, and reads its files. The model
// records entries without their parents, so it asks the index for paths.
func dumpFiles(t *testing.T, r *Run) map[string]metastore.File {
	t.Helper()
	db := loadDump(t, dumpAs(t, r, dump.Full))
	return readFiles(t, db, r.x.db.Conn, "SELECT id, path, 0, 0, "+fileColumns+" FROM files")
}

// dumpAs dumps the run's snapshot as the kind that is asked for.
func dumpAs(t *testing.T, r *Run, kind dump.PartKind) []*memoryPart {
	t.Helper()
	var parts []*memoryPart
	f, rs, err := r.readers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = f.WriteDump(t.Context(), rs, metastore.Snapshot{Seq: r.Seq()}, kind, func(int) (dump.PartWriter, error) {
		parts = append(parts, &memoryPart{limit: 1 << 20})
		return parts[len(parts)-1], nil
	})
	if err = errors.Join(err, rs.Close()); err != nil {
		t.Fatal(err)
	}
	return parts
}

// tablesOf reads all rows of a loaded dump.
func tablesOf(t *testing.T, db *sql.DB) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for i := range dump.TableCount {
		var columns []string
		for _, c := range i.Columns() {
			columns = append(columns, fmt.Sprintf("quote(%q)", c.Name))
		}
		rows, err := db.QueryContext(t.Context(), fmt.Sprintf("SELECT %s AS row FROM %s ORDER BY row", strings.Join(columns, "||','||"), i))
		if err == nil {
			err = sqlite.EachRow(t.Context(), rows, func(scan func(...any) error) error {
				var row string
				err := scan(&row)
				all[i.String()] = append(all[i.String()], row)
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestPathsMadeTogetherAreThoseFoundOneByOne(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	ctx := t.Context()
	known, err := r.Path(ctx, RootPath, "known")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"known"}
	for n := range 100 {
		names = append(names, fmt.Sprintf("new %d", n))
	}
	paths, err := r.NewPaths(ctx, RootPath, names)
	if err != nil {
		t.Fatal(err)
	}
	if paths[0] != known {
		t.Errorf("a path that was %d is %d", known, paths[0])
	}
	for i, name := range names {
		if again, err := r.Path(ctx, RootPath, name); err != nil || again != paths[i] {
			t.Errorf("%q is %d, made as %d (%v)", name, again, paths[i], err)
		}
	}
	if _, err := r.NewPaths(ctx, RootPath, []string{"fine", "not/fine"}); err == nil {
		t.Error("a name with a slash was taken")
	}
}
