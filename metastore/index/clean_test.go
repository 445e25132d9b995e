package index

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/clean"
	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
)

// removes makes a run of a set that removes files, and commits it.
func removes(t *testing.T, x *Index, set string, paths ...string) {
	t.Helper()
	r := begin(t, x, set)
	for _, p := range paths {
		if _, err := r.Close(t.Context(), at(t, r, p)); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, r)
}

// stores makes a run of a set with files of 10 bytes each, all in one blob, and
// commits it.
func stores(t *testing.T, x *Index, set string, paths ...string) metastore.BlobRef {
	t.Helper()
	r := begin(t, x, set)
	record(t, r, "/", folder())
	var chunks []BlobChunk
	for i, p := range paths {
		f := file(uint64(i + 10))
		var chunk int64
		f.Content, chunk = content(t, r, fmt.Sprintf("%-10s", p))
		f.Size = 10
		record(t, r, p, f)
		chunks = append(chunks, BlobChunk{Chunk: chunk, FrameOffset: 30, FrameLength: 40, Offset: int64(10 * i), Length: 10})
	}
	hash := upload(t, r, fmt.Sprint(set, r.Seq()), chunks...)
	commit(t, r)
	return metastore.BlobRef{Seq: r.Seq(), Hash: hash, Size: 1000}
}

func forget(t *testing.T, x *Index, seqs ...int64) []string {
	t.Helper()
	closed, err := x.Forget(t.Context(), seqs)
	if err != nil {
		t.Fatal(err)
	}
	return closed
}

func cleanUp(t *testing.T, x *Index, limit clean.Limits) clean.Done {
	t.Helper()
	done, err := x.Clean(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func named(t *testing.T, r *Run) (refs, pins []metastore.BlobRef) {
	t.Helper()
	refs, pins, err := r.References(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return refs, pins
}

// rowCounts is how many rows each table has.
func rowCounts(t *testing.T, x *Index) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, table := range []string{"files", "xattrs", "contents", "file_chunks", "chunks", "prefixes", "blobs", "blob_chunks", "paths", "runs", "forgotten"} {
		var n int
		if err := x.db.Conn.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		counts[table] = n
	}
	return counts
}

func TestRowsOfPurgedSnapshotsGo(t *testing.T) {
	x := newIndex(t, Options{})
	stores(t, x, "home", "/a", "/b")
	removes(t, x, "home", "/a", "/b")
	stores(t, x, "home", "/c")
	before := rowCounts(t, x)
	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows}); done != (clean.Done{}) {
		t.Errorf("without a purge: %+v", done)
	}
	if diff := cmp.Diff(before, rowCounts(t, x)); diff != "" {
		t.Error(diff)
	}

	forget(t, x, 1)
	forget(t, x, 1, 2) // again, after an answer that got lost
	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows}); done.More || done.Rows == 0 {
		t.Errorf("%+v", done)
	}
	want := map[string]int{
		"files": 2, "xattrs": 0, "contents": 1, "file_chunks": 1, "chunks": 1, "prefixes": 1,
		"blobs": 1, "blob_chunks": 1, "paths": 2, "runs": 1, "forgotten": 2,
	}
	if diff := cmp.Diff(want, rowCounts(t, x)); diff != "" {
		t.Error(diff)
	}
	for _, id := range []string{"ann-1", "ann-2", "ann-3"} {
		if used, err := x.SnapshotIDUsed(t.Context(), id); !used || err != nil {
			t.Errorf("%s may be used again: %v", id, err)
		}
	}
	runs, err := x.Runs(t.Context())
	if diff := cmp.Diff([]RunRef{{3, "ann-3", "home", sha256.Sum256([]byte("manifest 3"))}}, runs); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows}); done != (clean.Done{}) {
		t.Errorf("the second time: %+v", done)
	}
	last := x.last
	x = reopen(t, x, Options{})
	r := begin(t, x, "home")
	if id, _, err := r.Chunk(t.Context(), [32]byte{1}, 3); err != nil || id != last.chunks+1 {
		t.Errorf("chunk %d after %d: %v", id, last.chunks, err)
	}
	if id := at(t, r, "/a"); id != last.paths+1 {
		t.Errorf("path %d after %d", id, last.paths)
	}
}

func TestOnlyFinishedRunsBeforeTheNewestAreForgotten(t *testing.T) {
	x := newIndex(t, Options{})
	stores(t, x, "home", "/a")
	stores(t, x, "home", "/b")
	for _, seq := range []int64{0, 2, 3} {
		if _, err := x.Forget(t.Context(), []int64{1, seq}); err == nil {
			t.Errorf("run %d was forgotten", seq)
		}
	}
	r := begin(t, x, "home")
	if _, err := x.Forget(t.Context(), []int64{1}); !errors.Is(err, ErrPending) {
		t.Errorf("beside a run: %v", err)
	}
	if _, err := x.Clean(t.Context(), clean.Limits{Rows: 1}); !errors.Is(err, ErrPending) {
		t.Errorf("beside a run: %v", err)
	}
	if err := r.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runs, err := x.Runs(t.Context()); len(runs) != 2 || err != nil {
		t.Errorf("%v %v", runs, err)
	}
}

// A set that has no snapshots wants nothing, and begins anew should it come back.
func TestASetWithoutSnapshotsIsClosed(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	f := withContent(t, r, file(3), "hello")
	record(t, r, "/a", f)
	if err := r.SetMark(t.Context(), 1, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	commit(t, r)
	etc := stores(t, x, "etc", "/b")
	r = begin(t, x, "etc")
	if _, pins := named(t, r); len(pins) != 1 {
		t.Fatalf("pins of a set that is there: %v", pins)
	}
	commit(t, r)

	if closed := forget(t, x, 1); !cmp.Equal(closed, []string{"home"}) {
		t.Errorf("closed: %q", closed)
	}
	for _, cleaned := range []bool{false, true} {
		if cleaned {
			cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows})
		}
		r = begin(t, x, "etc")
		refs, pins := named(t, r)
		if diff := cmp.Diff([]metastore.BlobRef{etc}, refs); diff != "" || len(pins) > 0 {
			t.Errorf("cleaned %v: pins %v, %s", cleaned, pins, diff)
		}
		commit(t, r)
	}
	r = begin(t, x, "home")
	if d, err := r.Directory(t.Context(), 0, ""); d.Marked || err != nil {
		t.Error("a mark of the closed set is there", err)
	}
	if _, found, err := r.Open(t.Context(), at(t, r, "/a")); found || err != nil {
		t.Error("a version of the closed set is open", err)
	}
	if _, stored, err := r.Chunk(t.Context(), sha256.Sum256([]byte("hello")), 5); stored || err != nil {
		t.Error("a blob that nobody pins counts as stored", err)
	}
}

// Less than a quarter of a blob is needed: what is gets uploaded again, and the
// blob is needed no more.
func TestMostlyDeadBlobsAreRetired(t *testing.T) {
	x := newIndex(t, Options{})
	dead := stores(t, x, "home", "/a", "/b", "/c", "/d", "/e")
	quarter := stores(t, x, "home", "/f", "/g", "/h", "/i")
	removes(t, x, "home", "/b", "/c", "/d", "/e", "/f", "/g", "/h")
	forget(t, x, 1)

	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows, Retire: 100}); done.Retired != 0 {
		t.Errorf("run 2 needs all of it: %+v", done)
	}
	forget(t, x, 2)
	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows}); done.Retired != 0 {
		t.Errorf("not asked to: %+v", done)
	}
	removes(t, x, "home")
	forget(t, x, 3)
	want := clean.Done{Retired: 1, Bytes: 1000, Live: 10}
	got := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows, Retire: 1}) // less than it takes, but one always
	got.Rows = 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	r := begin(t, x, "home")
	if _, stored, err := r.Chunk(t.Context(), sha256.Sum256([]byte("/a        ")), 10); stored || err != nil {
		t.Error("what a retired blob holds counts as stored", err)
	}
	if missing, err := r.Missing(t.Context()); len(missing) > 0 || err != nil {
		t.Errorf("missing: %v %v", missing, err)
	}
	refs, _ := named(t, r)
	if diff := cmp.Diff([]metastore.BlobRef{dead, quarter}, refs); diff != "" {
		t.Error("as long as it is not uploaded again", diff)
	}
	moves, last, err := r.Moves(t.Context(), snapshot.OutOfRetired, 0, 100)
	if err != nil || len(moves) != 1 {
		t.Fatalf("moves: %+v %v", moves, err)
	}
	m := moves[0]
	if m.Path != at(t, r, "/a") || m.Offset != 0 || m.Size != 10 || m.Hash != sha256.Sum256([]byte("/a        ")) {
		t.Errorf("move: %+v", m)
	}
	if moves, _, err := r.Moves(t.Context(), snapshot.OutOfRetired, last, 100); len(moves) > 0 || err != nil {
		t.Errorf("behind it: %+v %v", moves, err)
	}
	fresh := metastore.BlobRef{Seq: r.Seq(), Hash: upload(t, r, "again", BlobChunk{Chunk: m.Chunk, FrameOffset: 30, FrameLength: 40, Length: 10}), Size: 1000}
	refs, pins := named(t, r)
	if diff := cmp.Diff([]metastore.BlobRef{quarter, fresh}, refs); diff != "" || len(pins) > 0 {
		t.Errorf("pins %v, %s", pins, diff)
	}
	commit(t, r)
}

// What is used of a blob is added up over the whole index, which is read in many
// pieces.
func TestWhatIsUsedOfALargeBlobIsAddedUp(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	var blob []BlobChunk
	for i, n := range []int{17_000, 3_000} {
		var pieces []ContentChunk
		for j := range n {
			c, _, err := r.Chunk(t.Context(), sha256.Sum256(fmt.Append(nil, i, " ", j)), 10)
			if err != nil {
				t.Fatal(err)
			}
			pieces = append(pieces, ContentChunk{int64(10 * j), 10, c})
			blob = append(blob, BlobChunk{Chunk: c, FrameOffset: 30, FrameLength: 40, Offset: int64(10 * len(blob)), Length: 10})
		}
		f := file(uint64(i + 10))
		var err error
		if f.Content, err = r.Content(t.Context(), pieces, 0); err != nil {
			t.Fatal(err)
		}
		f.Size = int64(10 * n)
		record(t, r, fmt.Sprint("/", i), f)
	}
	upload(t, r, "large", blob...)
	commit(t, r)
	removes(t, x, "home", "/0")
	forget(t, x, 1)
	done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows, Retire: 1})
	if done.Retired != 1 || done.Live != 30_000 {
		t.Errorf("%+v", done)
	}
	r = begin(t, x, "home")
	moves, _, err := r.Moves(t.Context(), snapshot.OutOfRetired, 0, 1)
	if err != nil || len(moves) != 3_000 {
		t.Fatalf("%d moves: %v", len(moves), err)
	}
	for i, m := range moves {
		if m.Offset != int64(10*i) || m.Path != at(t, r, "/1") {
			t.Fatalf("move %d: %+v", i, m)
		}
	}
}

// What another set has open in a retired blob stays readable until that set's
// own run has moved it.
func TestARetiredBlobStaysForOtherSets(t *testing.T) {
	x := newIndex(t, Options{})
	dead := stores(t, x, "home", "/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i")
	r := begin(t, x, "etc")
	record(t, r, "/", folder())
	f := file(9)
	f.Content, _ = content(t, r, "/b        ")
	f.Size = 10
	record(t, r, "/x", f)
	commit(t, r)
	removes(t, x, "home", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i")
	forget(t, x, 1)
	if done := cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows, Retire: 100}); done.Retired != 1 {
		t.Fatalf("%+v", done)
	}
	for _, set := range []string{"home", "etc"} {
		r := begin(t, x, set)
		moves, _, err := r.Moves(t.Context(), snapshot.OutOfRetired, 0, 100)
		if err != nil || len(moves) != 1 {
			t.Fatalf("%s: %+v %v", set, moves, err)
		}
		upload(t, r, "again "+set, BlobChunk{Chunk: moves[0].Chunk, FrameOffset: 30, FrameLength: 40, Length: 10})
		refs, pins := named(t, r)
		wanted := false
		for _, b := range append(refs, pins...) {
			wanted = wanted || b == dead
		}
		if wanted != (set == "home") {
			t.Errorf("after %s: refs %v, pins %v", set, refs, pins)
		}
		commit(t, r)
	}
}

// After a change of recipients a spread run makes do with what is there, and
// moves some of it.
func TestASpreadRunMovesOutOfFormerRecipientsBlobs(t *testing.T) {
	x := newIndex(t, Options{})
	a, b := stores(t, x, "home", "/a"), stores(t, x, "home", "/b")
	begins := func() *Run {
		r, err := x.Begin(t.Context(), RunInfo{Set: "home", SnapshotID: "n", Recipients: others, Spread: true})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := begins()
	if _, stored, err := r.Chunk(t.Context(), sha256.Sum256([]byte("/a        ")), 10); !stored || err != nil {
		t.Error("it counts as missing", err)
	}
	v, _, err := r.Open(t.Context(), at(t, r, "/a"))
	if v.Recheck || err != nil {
		t.Error("it is to be read again", err)
	}
	if missing, err := r.Missing(t.Context()); len(missing) > 0 || err != nil {
		t.Errorf("missing: %v %v", missing, err)
	}
	if former, err := r.Former(t.Context()); former != 2000 || err != nil {
		t.Errorf("%d bytes of former recipients, %v", former, err)
	}
	moves, _, err := r.Moves(t.Context(), snapshot.OutOfFormer, 0, 10)
	if err != nil || len(moves) != 1 || moves[0].Path != at(t, r, "/a") {
		t.Fatalf("moves: %+v %v", moves, err)
	}
	fresh := metastore.BlobRef{Seq: 3, Hash: upload(t, r, "again", BlobChunk{Chunk: moves[0].Chunk, FrameOffset: 30, FrameLength: 40, Length: 10}), Size: 1000}
	if former, err := r.Former(t.Context()); former != 1000 || err != nil {
		t.Errorf("%d bytes of former recipients, %v", former, err)
	}
	refs, pins := named(t, r)
	if diff := cmp.Diff([]metastore.BlobRef{b, fresh}, refs); diff != "" || len(pins) > 0 {
		t.Errorf("pins %v without %v, %s", pins, a, diff)
	}
	commit(t, r)
}

// A clean-up that ends anywhere leaves what is kept as it is, and the next one
// does the rest.
func TestACleanUpMayEndAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	var points []frozen
	on := false
	x, err := Create(t.Context(), path, "ann", Options{OnCommit: func() {
		if !on {
			return
		}
		points = append(points, freeze(t, path))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("/f%d", i))
	}
	stores(t, x, "home", many...)
	stores(t, x, "home", "/a", "/b")
	removes(t, x, "home", many[:48]...)
	show := func(x *Index) map[string]metastore.File {
		return readFiles(t, x.db.Conn, x.db.Conn, "SELECT "+versionColumns+" FROM snapshot_files f WHERE run = 3")
	}
	want := show(x)
	x.db.Batch, on = 20, true
	forget(t, x, 1, 2)
	cleanUp(t, x, clean.Limits{Rows: clean.DefaultRows, Retire: 1000})
	on = false
	rows := rowCounts(t, x)
	if len(points) < 10 {
		t.Fatalf("only %d points", len(points))
	}
	for i, p := range points {
		y := p.thaw(t)
		if diff := cmp.Diff(want, show(y)); diff != "" {
			t.Errorf("point %d: %s", i, diff)
		}
		forget(t, y, 1, 2)
		cleanUp(t, y, clean.Limits{Rows: clean.DefaultRows, Retire: 1000})
		if diff := cmp.Diff(rows, rowCounts(t, y)); diff != "" {
			t.Errorf("point %d: %s", i, diff)
		}
		if diff := cmp.Diff(want, show(y)); diff != "" {
			t.Errorf("point %d: %s", i, diff)
		}
	}
}
