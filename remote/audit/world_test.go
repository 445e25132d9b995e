package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// world is a store with the writer "ann", whose five runs are committed, one a
// day from 2 January 2026 on, the sets in turn.
type world struct {
	*mem.Store
	t       *testing.T
	clock   time.Time // of the store
	objects map[remote.Seq]*remote.Manifest
	hashes  map[remote.Seq]remote.Hash
}

func key(t testing.TB, name string) remote.SigningKey {
	t.Helper()
	seed := remote.Sum([]byte("a key for tests: " + name))
	k, err := remote.GenerateSigningKey(bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, objects: make(map[remote.Seq]*remote.Manifest), hashes: make(map[remote.Seq]remote.Hash)}
	w.Store = mem.New(func() time.Time { return w.clock })
	w.certify("ann", remote.Certificate{N: 1, Key: key(t, "ann").Public(), Role: remote.RoleWriter, Writer: "ann", From: 1})
	for seq := remote.Seq(1); seq <= 5; seq++ {
		w.commit(w.manifest(seq), "ann")
	}
	return w
}

func (w *world) certify(writer string, c remote.Certificate) {
	k := remote.SignerKey(writer, c.N)
	w.put(k, c.Key.File())
	w.put(remote.SignatureKey(k), remote.SignCertificate(key(w.t, "root"), c))
}

func (w *world) put(k string, body []byte) {
	w.t.Helper()
	if err := w.Put(w.t.Context(), k, body); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(k string) []byte {
	w.t.Helper()
	r, err := w.Get(w.t.Context(), k, 0, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) remove(keys ...string) {
	w.t.Helper()
	for _, k := range keys {
		if err := w.Delete(w.t.Context(), k); err != nil {
			w.t.Fatal(err)
		}
	}
}

// replace puts other bytes in an object's place, as somebody with the store's
// disk in his hands can.
func (w *world) replace(k string, body []byte) { w.remove(k); w.put(k, body) }

func (w *world) flip(k string) {
	body := w.get(k)
	body[len(body)/2] ^= 1
	w.replace(k, body)
}

// upload puts what is named by its hash.
func (w *world) upload(kind remote.Kind, seq remote.Seq, body string) remote.Object {
	o := remote.Object{Seq: seq, SHA256: remote.Sum([]byte(body)), Size: int64(len(body))}
	w.put(remote.Key{Writer: "ann", Kind: kind, Seq: seq, Hash: o.SHA256}.String(), []byte(body))
	return o
}

// manifest uploads what run seq uploads. Runs 1, 3 and 5 are of the set "home",
// the others of "work". Every run has a blob of its own; run 1 has three more,
// which all of "home" share by its list but for the third, which 5 drops and
// pins. Run 3 is a difference to the dump of run 1, run 5 stores all anew.
func (w *world) manifest(seq remote.Seq) *remote.Manifest {
	at := time.Date(2026, 1, 1+int(seq), 3, 0, 0, 0, time.UTC)
	w.clock = at.Add(90 * time.Second)
	m := &remote.Manifest{
		Format: remote.FormatVersion, Type: remote.TypeManifest, Writer: "ann", Seq: seq,
		Snapshot: "ann-" + at.Format("20060102-150405Z"), Set: "home",
		Started: at.Format(time.RFC3339), Finished: at.Add(time.Minute).Format(time.RFC3339), Version: "1.0.0",
		Dumps:      []remote.DumpPart{{Object: w.upload(remote.KindDump, seq, fmt.Sprintf("dump of run %d", seq)), PlainSize: 4096}},
		Blobs:      remote.ObjectList{Add: []remote.Object{w.upload(remote.KindBlob, seq, fmt.Sprintf("blob of run %d", seq))}},
		Recipients: []string{remote.Sum([]byte("a recipient")).String()},
		Parameters: remote.Parameters{Chunker: "fastcdc", ChunkMin: 256 << 10, ChunkAvg: 1 << 20, ChunkMax: 4 << 20},
	}
	if seq > 1 {
		previous := w.hashes[seq-1]
		m.Previous = &previous
	}
	switch seq {
	case 2, 4:
		m.Set = "work"
	case 1:
		for n := 1; n <= 3; n++ {
			w.upload(remote.KindBlob, 1, fmt.Sprintf("shared %d", n))
		}
		body, plain := list()
		m.Blobs.List = &remote.ListRef{Object: w.upload(remote.KindList, 1, string(body)), PlainSize: plain, Count: 3}
	case 3, 5:
		m.Blobs.List = w.objects[1].Blobs.List
	}
	switch seq {
	case 3:
		m.Dumps = append(slices.Clone(w.objects[1].Dumps), m.Dumps...)
	case 5:
		third := shared(3)
		m.Blobs.Drop = []remote.Name{third.Name()}
		m.Pins.Add = []remote.Object{third}
		m.PinnedDumps = []remote.Object{w.objects[4].Dumps[0].Object}
	}
	return m
}

func shared(n int) remote.Object {
	body := fmt.Sprintf("shared %d", n)
	return remote.Object{Seq: 1, SHA256: remote.Sum([]byte(body)), Size: int64(len(body))}
}

func (w *world) commit(m *remote.Manifest, by string) {
	w.t.Helper()
	object, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.objects[m.Seq], w.hashes[m.Seq] = m, remote.Sum(object)
	k := remote.ManifestKey("ann", m.Seq)
	w.put(remote.SignatureKey(k), key(w.t, by).Sign(object, remote.ManifestComment("ann", m.Seq)))
	w.put(k, object)
}

// tombstone returns the tombstone of a run, saying that its manifest is of.
func (w *world) tombstone(seq remote.Seq, of remote.Hash, by string) []byte {
	w.t.Helper()
	object, err := remote.NewTombstone("ann", seq, of, w.objects[seq].Previous, w.clock).Sign(key(w.t, by))
	if err != nil {
		w.t.Fatal(err)
	}
	return object
}

func blobKey(o remote.Object) string { return remote.BlobKey("ann", o.Seq, o.SHA256) }

func manifestKey(seq remote.Seq) string { return remote.ManifestKey("ann", seq) }

func dumpKey(seq remote.Seq) string {
	return remote.DumpKey("ann", seq, remote.Sum(fmt.Appendf(nil, "dump of run %d", seq)))
}

func list() (body []byte, plainSize int64) {
	return remote.EncodeList([]remote.Object{shared(1), shared(2), shared(3)})
}

func listKey() string {
	body, _ := list()
	return remote.ListKey("ann", 1, remote.Sum(body))
}

// audit looks at a store with what opts change about the usual look: of all
// that is there by its checksums, on 7 January.
func (w *world) audit(s remote.Store, opts ...func(*audit.Options)) (audit.Result, []audit.Finding) {
	w.t.Helper()
	var found []audit.Finding
	o := audit.Options{
		Store: s, StoreID: "mem", Root: key(w.t, "root").Public(), Writers: []string{"ann"}, Sums: true,
		Now:    func() time.Time { return time.Date(2026, 1, 7, 3, 0, 0, 0, time.UTC) },
		Report: func(f audit.Finding) { found = append(found, f) },
	}
	for _, opt := range opts {
		opt(&o)
	}
	result, err := audit.Run(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return result, found
}

func quick(o *audit.Options) { o.Sums = false }

func reading(r audit.Read) func(*audit.Options) { return func(o *audit.Options) { o.Read = &r } }

// trust says whether a finding ends the program with the exit code for what is
// not trusted.
func trust(f audit.Finding) bool {
	return !f.Harmless() && (errors.Is(f.Err, remote.ErrNotTrusted) || errors.Is(f.Err, remote.ErrMissing))
}

// lying is a store whose listing and answers are not what its objects are.
type lying struct {
	remote.Store
	hide  string           // not listed
	sizes map[string]int64 // listed with
	gone  string           // listed, but neither described nor read
	sums  map[string]remote.Hash
	body  func(key string, nth int) []byte // what a reading gets, nil: the truth

	mu    sync.Mutex
	reads map[string]int // so far
}

func (s *lying) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix) {
			if size, lie := s.sizes[info.Key]; lie {
				info.Size = size
			}
			if info.Key != s.hide && !yield(info, err) {
				return
			}
		}
	}
}

func (s *lying) Stat(ctx context.Context, key string) (remote.Info, error) {
	if key == s.gone {
		return remote.Info{}, fmt.Errorf("stat %q: %w", key, fs.ErrNotExist)
	}
	info, err := s.Store.Stat(ctx, key)
	if sum, lie := s.sums[key]; lie {
		info.SHA256 = sum
	}
	return info, err
}

func (s *lying) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if key == s.gone {
		return nil, fmt.Errorf("get %q: %w", key, fs.ErrNotExist)
	}
	s.mu.Lock()
	s.reads[key]++
	nth := s.reads[key]
	s.mu.Unlock()
	if s.body != nil {
		if body := s.body(key, nth); body != nil {
			return io.NopCloser(bytes.NewReader(body)), nil
		}
	}
	return s.Store.Get(ctx, key, off, n)
}

// purging is a store in which run 3 is forgotten and pruned as soon as the
// blobs are about to be listed.
type purging struct {
	remote.Store
	w    *world
	once sync.Once
}

func (s *purging) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	if prefix == remote.WriterPrefix("ann") {
		s.once.Do(func() {
			s.w.put(remote.TombstoneKey("ann", 3), s.w.tombstone(3, s.w.hashes[3], "ann"))
			s.w.remove(manifestKey(3), blobKey(s.w.objects[3].Blobs.Add[0]))
		})
	}
	return s.Store.List(ctx, prefix)
}

// lagging does not list an object yet when it lists all of them.
type lagging struct {
	remote.Store
	late string
}

func (s *lagging) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix) {
			if (info.Key != s.late || prefix == s.late) && !yield(info, err) {
				return
			}
		}
	}
}
