package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

func TestCommitGoesThroughAnIntent(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	if r.Seq() != 1 {
		t.Fatalf("the first run is %d", r.Seq())
	}
	want := Status{Writer: "ann", Interrupted: 1}
	expect := func(x *Index) {
		t.Helper()
		s, err := x.Status(t.Context())
		if diff := cmp.Diff(want, s); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
	expect(x)
	intend(t, r)
	manifest := []byte("manifest 1")
	hash := sha256.Sum256(manifest)
	want = Status{Writer: "ann", Intent: &Intent{Seq: 1, Manifest: manifest, Signature: []byte("signed"), Hash: hash}}
	expect(x)

	x = reopen(t, x, Options{}) // the process ends before the answer arrives
	expect(x)
	if lists, err := x.LastLists(t.Context()); lists != nil || err != nil {
		t.Errorf("lists of a run that is not committed: %q %v", lists, err)
	}
	if _, err := x.Begin(t.Context(), RunInfo{Set: "home", SnapshotID: "b"}); !errors.Is(err, ErrPending) {
		t.Errorf("a run beside an intent: %v", err)
	}
	if err := x.Rollback(t.Context()); !errors.Is(err, ErrPending) {
		t.Errorf("an intent was rolled back: %v", err)
	}
	if err := x.Confirm(t.Context(), 2); err == nil {
		t.Error("a run that does not exist was confirmed")
	}
	for range 2 { // the second time after a lost answer
		if err := x.Confirm(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
	want = Status{Writer: "ann", LastSeq: 1, LastManifest: hash}
	expect(x)
	if lists, err := x.LastLists(t.Context()); string(lists) != "lists 1" || err != nil {
		t.Errorf("lists: %q %v", lists, err)
	}
	for id, want := range map[string]bool{"ann-1": true, "ann-2": false} {
		if used, err := x.SnapshotIDUsed(t.Context(), id); used != want || err != nil {
			t.Errorf("%s: %v %v", id, used, err)
		}
	}
	if r := begin(t, x, "home"); r.Seq() != 2 {
		t.Errorf("the second run is %d", r.Seq())
	}
}

func TestRunsDoNotOverlap(t *testing.T) {
	x := newIndex(t, Options{})
	begin(t, x, "home")
	if _, err := x.Begin(t.Context(), RunInfo{Set: "etc", SnapshotID: "b"}); !errors.Is(err, ErrPending) {
		t.Error(err)
	}
	if err := x.Rollback(t.Context()); !errors.Is(err, ErrPending) {
		t.Errorf("a run in progress was rolled back: %v", err)
	}
	x = reopen(t, x, Options{})
	if _, err := x.Begin(t.Context(), RunInfo{Set: "etc", SnapshotID: "b"}); !errors.Is(err, ErrPending) {
		t.Errorf("a run over an interrupted one: %v", err)
	}
	for range 2 {
		if err := x.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := begin(t, x, "etc"); r.Seq() != 1 {
		t.Errorf("the seq of the run that was rolled back was used up, now it is %d", r.Seq())
	}
}

func TestARunThatIsOverDoesNothing(t *testing.T) {
	x := newIndex(t, Options{})
	for _, end := range []func(*Run){
		func(r *Run) { commit(t, r) },
		func(r *Run) {
			if err := r.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		},
	} {
		r := begin(t, x, "home")
		end(r)
		if _, err := r.Record(t.Context(), 1, folder(), false); !errors.Is(err, ErrRunOver) {
			t.Errorf("record: %v", err)
		}
		if _, _, err := r.WriteDump(t.Context(), metastore.Snapshot{Seq: r.Seq()}, nil); !errors.Is(err, ErrRunOver) {
			t.Errorf("dump: %v", err)
		}
	}
	r := begin(t, x, "home")
	intend(t, r)
	if err := r.Rollback(t.Context()); !errors.Is(err, ErrRunOver) {
		t.Errorf("rollback over an intent: %v", err)
	}
	if s, err := x.Status(t.Context()); s.Intent == nil || err != nil {
		t.Errorf("the intent is gone: %v %v", s, err)
	}
}

func TestIntentMustMatchItsReferences(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	if _, _, err := r.References(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, r, "/", folder())
	if err := r.SetIntent(t.Context(), Commit{Manifest: []byte("m"), Signature: []byte("s")}); err == nil {
		t.Fatal("a manifest was accepted that cannot name what was recorded after it")
	}
	if err := r.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAFailedRunCanOnlyBeRolledBack(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	f := file(3)
	f.Content, _ = content(t, r, "five!")
	f.Size = 4
	_, failure := r.Record(t.Context(), at(t, r, "/f"), f, false)
	if failure == nil {
		t.Fatal("a file of 4 bytes got 5 bytes of content")
	}
	if _, err := r.Path(t.Context(), 1, "a"); err != failure {
		t.Errorf("%v, not %v", err, failure)
	}
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := x.Status(t.Context()); err != nil || s.Interrupted != 0 {
		t.Error(s, err)
	}
}

func TestACancelledContextEndsNothingHalfway(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Record(ctx, 1, folder(), false); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !record(t, r, "/", folder()) { // the run goes on
		t.Error("it had been recorded")
	}
}

func TestEntriesNoReaderWouldAcceptAreRefused(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", string(make([]byte, 256))} {
		if _, err := r.Path(t.Context(), 1, name); err == nil {
			t.Errorf("%q became a path", name)
		}
	}
	for what, spoil := range map[string]func(*metastore.File){
		"type":        func(f *metastore.File) { f.Type = 'x' },
		"role":        func(f *metastore.File) { f.Role = "outside" },
		"state":       func(f *metastore.File) { f.State = "" },
		"mode":        func(f *metastore.File) { f.Mode = 0o10000 },
		"nanoseconds": func(f *metastore.File) { f.CTime.Nsec = 1_000_000_000 },
		"size":        func(f *metastore.File) { f.Size = -1 },
		"content":     func(f *metastore.File) { f.Type, f.Content = metastore.Directory, 1 },
		"xattr order": func(f *metastore.File) {
			f.Xattrs = []metastore.Xattr{{Name: "b", Value: nil}, {Name: "a", Value: nil}}
		},
		"xattr twice": func(f *metastore.File) {
			f.Xattrs = []metastore.Xattr{{Name: "a", Value: nil}, {Name: "a", Value: nil}}
		},
	} {
		f := file(1)
		spoil(&f)
		if _, err := r.Record(t.Context(), 1, f, false); err == nil {
			t.Errorf("wrong %s was recorded", what)
		}
	}
	for _, chunks := range [][]ContentChunk{{{1, 1, 0}}, {{0, 0, 0}}, {{0, 2, 0}, {1, 2, 0}}, {{0, 2, 0}, {3, 2, 0}}} {
		if _, err := r.Content(t.Context(), chunks, 0); err == nil {
			t.Errorf("%v became content", chunks)
		}
	}
	if _, err := r.Volume(t.Context(), "ext4'", 1, "/"); err == nil {
		t.Error("a quote got into a dump")
	}
	if !record(t, r, "/", folder()) {
		t.Error("the run did not go on")
	}
}

// The daily backup of a big tree that hardly changes is a sequence of these.
func TestAnUnchangedDirectoryCostsOneQueryAndNoWrite(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	record(t, r, "/a", folder())
	mark := [16]byte{9}
	if err := r.SetMark(t.Context(), at(t, r, "/a"), mark); err != nil {
		t.Fatal(err)
	}
	commit(t, r)

	r = begin(t, x, "home")
	changes := func() (n int64) {
		if err := x.db.Conn.QueryRowContext(t.Context(), "SELECT total_changes()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	statements, before := x.db.Statements, changes()
	d, err := r.Directory(t.Context(), 1, "a")
	if err != nil || d != (DirectoryMark{Path: at(t, r, "/a"), Mark: mark, Marked: true, Volume: d.Volume}) {
		t.Error(d, err)
	}
	if n := x.db.Statements - statements - 1; n != 1 { // at asked once
		t.Errorf("%d statements", n)
	}
	if n := changes() - before; n != 0 {
		t.Errorf("%d rows changed", n)
	}
}

func TestAnUnchangedEntryIsNotWritten(t *testing.T) {
	x := newIndex(t, Options{})
	f := file(7)
	f.Xattrs = []metastore.Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b", Value: nil}}
	for range 2 {
		r := begin(t, x, "home")
		record(t, r, "/", folder())
		record(t, r, "/f", f)
		commit(t, r)
	}
	r := begin(t, x, "home")
	if record(t, r, "/f", f) {
		t.Error("it was written again")
	}
	f.Xattrs = []metastore.Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b", Value: []byte("x")}}
	if !record(t, r, "/f", f) {
		t.Error("a changed attribute was not seen")
	}
	var versions int
	if _, _, err := r.Open(t.Context(), at(t, r, "/f")); err != nil { // which writes what is held back
		t.Fatal(err)
	}
	if err := x.db.Conn.QueryRowContext(t.Context(), "SELECT count(*) FROM files").Scan(&versions); err != nil || versions != 3 {
		t.Errorf("%d versions, %v", versions, err)
	}
}

func TestIDsAreNotReusedAfterARollback(t *testing.T) {
	x := newIndex(t, Options{})
	ids := func(r *Run) (ids [4]int64) {
		f := withContent(t, r, file(1), "hello")
		record(t, r, "/", folder())
		record(t, r, "/f", f)
		if err := r.x.db.Commit(); err != nil {
			t.Fatal(err)
		}
		v, _, err := r.Open(t.Context(), at(t, r, "/f"))
		if err != nil {
			t.Fatal(err)
		}
		volume, err := r.Volume(t.Context(), "ext4", 1<<63+1, "/")
		if err != nil {
			t.Fatal(err)
		}
		return [4]int64{v.Row, v.File.Content, v.Path, volume}
	}
	r := begin(t, x, "home")
	first := ids(r)
	x = reopen(t, x, Options{})
	if err := x.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"files", "contents", "file_chunks", "runs"} {
		var n int
		if err := x.db.Conn.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows of %s are left: %v", n, table, err)
		}
	}
	x = reopen(t, x, Options{})
	second := ids(begin(t, x, "home"))
	if second[0] <= first[0] || second[1] <= first[1] {
		t.Errorf("rows %v, after the rollback %v", first, second)
	}
	if second[2] != first[2] {
		t.Errorf("the path %d became %d", first[2], second[2])
	}
}

func TestUploadsSurviveARollback(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	withContent(t, r, file(1), "hello")
	x = reopen(t, x, Options{})
	if err := x.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = begin(t, x, "home")
	if _, stored, err := r.Chunk(t.Context(), sha256.Sum256([]byte("hello")), 5); !stored || err != nil {
		t.Error(stored, err)
	}
	if blobs, err := r.Blobs(t.Context()); len(blobs) != 1 || blobs[0].Seq != 1 || err != nil {
		t.Error(blobs, err)
	}
}

// A directory that is moved away and back looks the same as before. Its mark
// must not make the index believe that its entries are still recorded.
func TestADirectoryThatComesBackHasNoMark(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	for _, p := range []string{"/", "/a", "/a/b", "/a/b/c"} {
		record(t, r, p, folder())
		if err := r.SetMark(t.Context(), at(t, r, p), [16]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	record(t, r, "/a/b/f", file(9))
	commit(t, r)
	r = begin(t, x, "home")
	if n, err := r.Close(t.Context(), at(t, r, "/a")); n != 4 || err != nil {
		t.Errorf("closed %d: %v", n, err)
	}
	commit(t, r)
	r = begin(t, x, "home")
	for _, c := range []struct {
		parent, name string
		marked       bool
	}{{"/", "a", false}, {"/a", "b", false}, {"/a/b", "c", false}} {
		if d, err := r.Directory(t.Context(), at(t, r, c.parent), c.name); d.Marked != c.marked || err != nil {
			t.Errorf("%s in %s: %v %v", c.name, c.parent, d, err)
		}
	}
	if d, err := r.Directory(t.Context(), 0, ""); !d.Marked || d.Path != 1 || err != nil {
		t.Errorf("/: %v %v", d, err)
	}
}

func TestChildrenAreOpenVersionsInByteOrder(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	names := []string{"\xff\xfe", "b", "a", "B", "ä"}
	for i, name := range names {
		record(t, r, "/"+name, file(uint64(i)))
	}
	f := file(99)
	f.Type, f.Target, f.Inode = metastore.Symlink, "to\xffwhere", 1<<63|5
	record(t, r, "/link", f)
	if _, err := r.Record(t.Context(), at(t, r, "/hot"), file(7), true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Close(t.Context(), at(t, r, "/b")); err != nil {
		t.Fatal(err)
	}
	record(t, r, "/a/below", file(8))
	versions, err := r.Children(t.Context(), 1, "", LastName)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range versions {
		got = append(got, v.Name)
		if v.Recheck != (v.Name == "hot") {
			t.Errorf("%q: recheck is %v", v.Name, v.Recheck)
		}
		if v.Name == "link" {
			if diff := cmp.Diff(f, v.File); diff != "" {
				t.Error(diff)
			}
		}
	}
	if diff := cmp.Diff([]string{"B", "a", "hot", "link", "ä", "\xff\xfe"}, got); diff != "" {
		t.Error(diff)
	}
	if _, found, err := r.Open(t.Context(), at(t, r, "/b")); found || err != nil {
		t.Error("a closed version is open", err)
	}
}

// After a recipient was added, what only the old ones can read must be
// uploaded anew, or losing their keys would lose it behind green backups.
func TestAChangeOfRecipientsMakesEverythingBeReadAgain(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	f := withContent(t, r, file(1), "hello")
	record(t, r, "/f", f)
	if err := r.SetMark(t.Context(), 1, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	commit(t, r)

	r, err := x.Begin(t.Context(), RunInfo{Set: "home", SnapshotID: "two", Recipients: others})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := r.Directory(t.Context(), 0, ""); d.Marked || err != nil {
		t.Errorf("the directory would not be looked at: %v %v", d, err)
	}
	recheck := func() bool {
		v, err := r.Children(t.Context(), 1, "", LastName)
		if len(v) != 1 || err != nil {
			t.Fatal(v, err)
		}
		return v[0].Recheck
	}
	if !recheck() {
		t.Error("the file would not be read again")
	}
	id, stored, err := r.Chunk(t.Context(), sha256.Sum256([]byte("hello")), 5)
	if stored || err != nil {
		t.Error("a chunk for the old recipients counts as stored", err)
	}
	upload(t, r, "for the new ones", BlobChunk{Chunk: id, Length: 5})
	if recheck() {
		t.Error("the file would be read forever")
	}
	commit(t, r)
	if blobs, err := begin(t, x, "home").Blobs(t.Context()); len(blobs) != 1 || blobs[0].Seq != 2 || err != nil {
		t.Errorf("the index counts on %v, %v", blobs, err)
	}
}

// Scanner, packer and uploaders use a run at once.
func TestManyGoroutinesShareARun(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	x := newIndex(t, Options{})
	defer x.Close()
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	var group errgroup.Group
	for g := range 4 {
		group.Go(func() error {
			for i := range 50 {
				path, err := r.Path(t.Context(), 1, fmt.Sprintf("%d-%d", g, i))
				if err != nil {
					return err
				}
				name := fmt.Sprintf("shared by all %d", i)
				chunk, _, err := r.Chunk(t.Context(), sha256.Sum256([]byte(name)), 9)
				if err != nil {
					return err
				}
				f := file(uint64(i))
				f.Size = 9
				if f.Content, err = r.Content(t.Context(), []ContentChunk{{0, 9, chunk}}, 0); err != nil {
					return err
				}
				if _, err := r.Record(t.Context(), path, f, false); err != nil {
					return err
				}
				hash := sha256.Sum256(fmt.Append(nil, g, i))
				if err := r.AddBlob(t.Context(), Blob{Hash: hash, Size: 100}, []BlobChunk{{chunk, 10, 20, 0, 9}}); err != nil {
					return err
				}
				if _, err := r.Children(t.Context(), 1, "", LastName); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		_, _, err := r.WriteDump(t.Context(), metastore.Snapshot{Seq: r.Seq()}, func(int) (dump.PartWriter, error) { return &memoryPart{limit: 1 << 20}, nil })
		return err
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	_, totals := writeDump(t, r, metastore.Snapshot{Seq: r.Seq()}, 1<<20)
	if totals.Files != 201 || totals.Chunks != 50 || totals.Blobs != 50 || totals.Contents != 200 {
		t.Errorf("%+v", totals)
	}
}
