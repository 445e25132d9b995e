package backup

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a writer with a store in memory and a source that does as told.
type world struct {
	t        *testing.T
	source   *fakeSource
	store    *storetest.Faulty
	indexAt  string
	index    *index.Index
	identity *age.X25519Identity
	former   []age.Identity // which some objects are encrypted to as well
	config   Config
	set      Set
	now      time.Time
}

// start is when the first backup of a world is made; files that have been
// there for long have smaller times.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T, tree map[string]node, roots ...string) *world {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	signer, err := remote.GenerateSigningKey(nil)
	check(t, err)
	w := &world{
		t: t, source: newSource(tree), store: storetest.NewFaulty(mem.New(nil)),
		indexAt: filepath.Join(t.TempDir(), "index.db"), identity: identity, now: start,
	}
	w.index, err = index.Create(t.Context(), w.indexAt, "host", index.Options{})
	check(t, err)
	t.Cleanup(func() { check(t, w.index.Close()) })
	w.config = Config{
		Store: w.store, Index: w.index, Source: w.source, Writer: "host", Hostname: "host.example", Version: "test",
		Recipients: []string{identity.Recipient().String()}, Signer: signer,
		Chunking: metastore.Chunking{Algorithm: "fastcdc-v1.0.0", Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10, Secret: make([]byte, 32)},
		Level:    seal.Fastest, BlobSize: 1 << 20,
		Now: func() time.Time { return w.now },
	}
	if len(roots) == 0 {
		roots = []string{"/home"}
	}
	w.set = Set{Name: "default", Roots: roots}
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// try runs a backup an hour after the last.
func (w *world) try() (*Result, error) {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	w.config.Index = w.index
	r, err := Run(w.t.Context(), w.config, w.set)
	w.source.closed(w.t)
	return r, err
}

// backup must succeed.
func (w *world) backup() *Result {
	w.t.Helper()
	r, err := w.try()
	check(w.t, err)
	return r
}

// reopen closes the index and opens it again, as the next process would.
func (w *world) reopen() {
	w.t.Helper()
	check(w.t, w.index.Close())
	var err error
	w.index, err = index.Open(w.t.Context(), w.indexAt, index.Options{})
	check(w.t, err)
}

func (w *world) identities() []age.Identity { return append([]age.Identity{w.identity}, w.former...) }

// manifest reads a snapshot's manifest.
func (w *world) manifest(seq remote.Seq) *remote.Manifest {
	w.t.Helper()
	object, err := get(w.t.Context(), w.store.Store, remote.ManifestKey("host", seq), 1<<20)
	check(w.t, err)
	signature, err := get(w.t.Context(), w.store.Store, remote.SignatureKey(remote.ManifestKey("host", seq)), 1<<20)
	check(w.t, err)
	_, err = w.config.Signer.Public().Verify(object, signature)
	check(w.t, err)
	m, err := remote.DecodeManifest(object)
	check(w.t, err)
	return m
}

// view loads a snapshot's dump as a reader does.
func (w *world) view(seq remote.Seq) *view.View {
	w.t.Helper()
	m := w.manifest(seq)
	var parts []build.Part
	for _, d := range m.Dumps {
		parts = append(parts, build.Part{Open: func(ctx context.Context) (io.ReadCloser, error) {
			object, err := get(ctx, w.store.Store, remote.DumpKey("host", d.Seq, d.SHA256), d.Size+1)
			if err != nil {
				return nil, err
			}
			return seal.Open(object, w.identities(), d.PlainSize)
		}})
	}
	want := metastore.Totals{
		Files: m.Rows.Files, Bytes: m.Totals.Bytes, Volumes: m.Rows.Volumes, Paths: m.Rows.Paths, Xattrs: m.Rows.Xattrs,
		Contents: m.Rows.Contents, FileChunks: m.Rows.FileChunks, Chunks: m.Rows.Chunks, Blobs: m.Rows.Blobs, BlobChunks: m.Rows.BlobChunks,
	}
	path := filepath.Join(w.t.TempDir(), "view.db")
	check(w.t, build.View(w.t.Context(), path, parts, build.Expected{
		ID: m.Snapshot, Writer: m.Writer, Set: m.Set, Seq: int64(m.Seq), Totals: want,
	}))
	v, err := view.Open(w.t.Context(), path)
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, v.Close()) })
	return v
}

// shows describes every entry of a snapshot: the content of regular files,
// the target of links, the type of others, with the state if it is not
// complete. Contents are read from the store, chunk by chunk.
func (w *world) shows(seq remote.Seq) map[string]string {
	w.t.Helper()
	v, all := w.view(seq), map[string]string{}
	var walk func(dir uint64, at string)
	walk = func(dir uint64, at string) {
		for cookie := uint64(0); ; {
			nodes, err := v.ReadDir(w.t.Context(), dir, cookie, 100)
			check(w.t, err)
			if len(nodes) == 0 {
				return
			}
			for _, n := range nodes {
				cookie = n.Cookie
				p := at + "/" + n.Name
				all[p] = w.describe(v, n)
				if n.Type == metastore.Directory && n.State != metastore.StateUnreadable {
					walk(n.Ino, p)
				}
			}
		}
	}
	walk(v.Root(), "")
	return all
}

func (w *world) describe(v *view.View, n view.Node) string {
	w.t.Helper()
	text := ""
	switch n.Type {
	case metastore.Regular:
		if n.State != metastore.StateUnreadable {
			text = w.content(v, n)
		}
	case metastore.Symlink:
		text = "-> " + n.Target
	default:
		text = string(n.Type)
	}
	if n.State != metastore.StateComplete {
		text = strings.TrimSpace(text + " (" + string(n.State) + ")")
	}
	return text
}

func (w *world) content(v *view.View, n view.Node) string {
	w.t.Helper()
	extents, err := v.Extents(w.t.Context(), n, 0, n.Size)
	check(w.t, err)
	var b strings.Builder
	for _, x := range extents {
		if x.Hole {
			b.WriteString(strings.Repeat("\x00", int(x.Length)))
			continue
		}
		if x.Lost {
			return "lost"
		}
		ref := blob.Ref{
			Key: remote.BlobKey("host", remote.Seq(x.Blob.Seq), x.Blob.Hash), Hash: x.Blob.Hash,
			Size: x.Blob.Size, Header: x.Blob.Header,
		}
		frames, err := blob.NewReader(w.store.Store, ref, w.identities()).
			Frames(w.t.Context(), []blob.Span{{Offset: x.FrameOffset, Length: x.FrameLength}})
		check(w.t, err)
		chunk := frames[0][x.FrameStart : x.FrameStart+x.ChunkSize]
		check(w.t, blob.CheckChunk(x.Chunk, chunk))
		b.Write(chunk)
	}
	return b.String()
}

// kinds lists the problems as "kind path".
func kinds(r *Result) []string {
	var list []string
	for _, p := range r.Problems {
		list = append(list, strings.TrimSpace(string(p.Kind)+" "+p.Path))
	}
	slices.Sort(list)
	return list
}

// objects lists the keys in the store below a prefix.
func (w *world) objects(prefix string) []string {
	w.t.Helper()
	var keys []string
	for info, err := range w.store.Store.List(w.t.Context(), prefix) {
		check(w.t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

// with returns a tree with changes.
func with(tree map[string]string, changes map[string]string) map[string]string {
	t := maps.Clone(tree)
	maps.Copy(t, changes)
	return t
}

var errInjected = errors.New("injected")

// noise makes content that does not compress.
type noise struct{ *rand.Rand }

func newNoise(seed uint64) noise { return noise{rand.New(rand.NewPCG(seed, 0))} }

func (n noise) text(length int) string {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(n.Uint32())
	}
	return string(b)
}
