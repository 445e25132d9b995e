package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// newIndex makes an empty index of the writer "ann" that is closed at the end
// of the test.
func newIndex(t testing.TB, o Options) *Index {
	t.Helper()
	x, err := Create(t.Context(), filepath.Join(t.TempDir(), "index.db"), "ann", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// reopen closes an index, as the end of the process does, and opens it again.
func reopen(t testing.TB, x *Index, o Options) *Index {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	y, err := Open(t.Context(), x.path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.Close() })
	return y
}

var ours, others = [32]byte{1}, [32]byte{2} // recipient sets

// begin begins a run of a set whose snapshot id is made of the run's number.
func begin(t testing.TB, x *Index, set string) *Run {
	t.Helper()
	s, err := x.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := x.Begin(t.Context(), RunInfo{Set: set, SnapshotID: fmt.Sprintf("ann-%d", s.LastSeq+1), Started: metastore.Time{Sec: 1_700_000_000, Nsec: 5}, Recipients: ours})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// intend stores an intent for the run.
func intend(t testing.TB, r *Run) {
	t.Helper()
	if _, _, err := r.References(t.Context()); err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Appendf(nil, "manifest %d", r.Seq())
	if err := r.SetIntent(t.Context(), Commit{
		Manifest: manifest, Signature: []byte("signed"), Hash: sha256.Sum256(manifest), Lists: fmt.Appendf(nil, "lists %d", r.Seq()),
	}); err != nil {
		t.Fatal(err)
	}
}

// commit brings a run to its end.
func commit(t testing.TB, r *Run) {
	t.Helper()
	intend(t, r)
	if err := r.x.Confirm(t.Context(), r.Seq()); err != nil {
		t.Fatal(err)
	}
}

// at finds or makes the id of a path such as "/home/ann".
func at(t testing.TB, r *Run, path string) int64 {
	t.Helper()
	id := int64(1)
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		var err error
		if id, err = r.Path(t.Context(), id, name); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func record(t testing.TB, r *Run, path string, f metastore.File) bool {
	t.Helper()
	changed, err := r.Record(t.Context(), at(t, r, path), f, false)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// folder and file are entries like many.
func folder() metastore.File {
	return metastore.File{Stat: metastore.Stat{Type: metastore.Directory, Mode: 0o755, Nlink: 2, Inode: 2, MTime: metastore.Time{Sec: 1000, Nsec: 1}}, Role: metastore.RoleInside, State: metastore.StateComplete, User: "root"}
}

func file(inode uint64) metastore.File {
	return metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o644, Nlink: 1, Inode: inode, MTime: metastore.Time{Sec: 2000, Nsec: 2}}, Role: metastore.RoleInside, State: metastore.StateComplete, User: "ann", Group: "users"}
}

// content stores plain as one chunk and returns its content and chunk.
func content(t testing.TB, r *Run, plain string) (id, chunk int64) {
	t.Helper()
	chunk, _, err := r.Chunk(t.Context(), sha256.Sum256([]byte(plain)), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	id, err = r.Content(t.Context(), []ContentChunk{{0, int64(len(plain)), chunk}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return id, chunk
}

// withContent makes f's content plain, uploaded in a blob of its own.
func withContent(t testing.TB, r *Run, f metastore.File, plain string) metastore.File {
	t.Helper()
	var chunk int64
	f.Content, chunk = content(t, r, plain)
	f.Size = int64(len(plain))
	upload(t, r, "blob of "+plain, BlobChunk{Chunk: chunk, FrameOffset: 30, FrameLength: 40, Offset: 0, Length: f.Size})
	return f
}

func upload(t testing.TB, r *Run, name string, chunks ...BlobChunk) [32]byte {
	t.Helper()
	hash := sha256.Sum256([]byte(name))
	if err := r.AddBlob(t.Context(), Blob{Hash: hash, Size: 1000, Header: 200, Level: 2, UploadMS: 7}, chunks); err != nil {
		t.Fatal(err)
	}
	return hash
}

func TestNewIndexIsEmptyAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in dex?#%41.db")
	x, err := Create(t.Context(), path, "ann", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	s, err := x.Status(t.Context())
	if diff := cmp.Diff(Status{Writer: "ann"}, s); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v %v", name, info.Mode(), err)
		}
	}
	if _, err := Create(t.Context(), path, "bob", Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an index: %v", err)
	}
	if x = reopen(t, x, Options{}); x.writer != "ann" {
		t.Errorf("the writer became %q", x.writer)
	}
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp-*"))
	if len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestCreateRefusesAnotherIndexsLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	if err := os.WriteFile(path+"-wal", []byte("pages"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), path, "ann", Options{}); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "-wal") {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half an index: %v", err)
	}
}

func TestCreateIsWholeOrNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	folder := t.TempDir()
	if _, err := Create(ctx, filepath.Join(folder, "index.db"), "ann", Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestUselessFilesAreRefusedByName(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "good.db")
	x, err := Create(t.Context(), path, "ann", Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := begin(t, x, "home")
	for i := range 2000 {
		record(t, r, fmt.Sprintf("/file-%04d", i), file(uint64(i)))
	}
	commit(t, r)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(off int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[off:], b)
		return c
	}
	version := binary.BigEndian.AppendUint32(nil, formatVersion+1)
	for name, c := range map[string]struct {
		bytes []byte
		err   error
		says  string
	}{
		"empty.db":       {nil, ErrNotIndex, "vaultik init"},
		"short.db":       {good[:60], ErrNotIndex, "60 bytes"},
		"text.db":        {bytes.Repeat([]byte("hello "), 1000), ErrNotIndex, "vaultik init"},
		"other-app.db":   {changed(68, 0, 0, 0, 0), ErrNotIndex, "vaultik init"},
		"newer.db":       {changed(60, version...), ErrVersion, "it is 4, this program knows 3"},
		"truncated.db":   {good[:len(good)/2], ErrDamaged, "vaultik init"},
		"one-short.db":   {good[:len(good)-1], ErrDamaged, "vaultik init"},
		"no-schema.db":   {changed(100, make([]byte, 3000)...), ErrDamaged, "vaultik init"},
		"sub/missing.db": {nil, fs.ErrNotExist, "missing.db"},
	} {
		path := filepath.Join(folder, name)
		if !strings.Contains(name, "/") {
			if err := os.WriteFile(path, c.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(t.Context(), path, Options{})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if logs, _ := filepath.Glob(path + "-*"); len(logs) > 0 && c.err == ErrNotIndex {
			t.Errorf("%s: a foreign file got %q", name, logs)
		}
	}
	if _, err := Open(t.Context(), folder, Options{}); !errors.Is(err, ErrNotIndex) {
		t.Errorf("a folder: %v", err)
	}
	if os.Getuid() == 0 {
		t.Log("not tried as root, who can read everything: a file without read permission")
		return
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable: %v", err)
	}
}

func TestDamageIsFoundAfterAnUncleanEnd(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	for i := range 2000 {
		record(t, r, fmt.Sprintf("/file-%04d", i), file(uint64(i)))
	}
	commit(t, r)
	x = reopen(t, x, Options{})
	begin(t, x, "home")
	// As it lies on the disk in this moment, with one page gone.
	path := filepath.Join(t.TempDir(), "index.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(x.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if suffix == "" {
			copy(b[len(b)-2*4096:], make([]byte, 4096))
		}
		if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestClosedIndexSaysSo(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Status(t.Context()); !errors.Is(err, sqlite.ErrClosed) {
		t.Error(err)
	}
	if _, err := r.Path(t.Context(), 1, "a"); !errors.Is(err, sqlite.ErrClosed) {
		t.Error(err)
	}
}
