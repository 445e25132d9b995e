package prune_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/prune"
)

// world is a store in which things have names that people can read: "2/a" is
// the blob, or the part of a dump, that run 2 uploaded and whose bytes are "a".
type world struct {
	*mem.Store
	t      tester
	writer string
	runs   []remote.Verified // what was committed, run 1 first, also what was forgotten since
	lists  map[remote.Hash][]remote.Object
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(t tester) *world { return newClockedWorld(t, time.Now) }

func newClockedWorld(t tester, now func() time.Time) *world {
	x := &world{Store: mem.New(now), t: t, writer: "ann", lists: make(map[remote.Hash][]remote.Object)}
	x.certify(1, "ann", remote.RoleWriter)
	x.certify(2, "maintainer", remote.RoleMaintainer)
	return x
}

func key(name string) remote.SigningKey {
	seed := remote.Sum([]byte("a key for tests: " + name))
	k, err := remote.GenerateSigningKey(bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return k
}

func (x *world) certify(n int, name string, role remote.Role) {
	c := remote.Certificate{N: n, Key: key(name).Public(), Role: role, Writer: x.writer}
	if role == remote.RoleWriter {
		c.From = 1
	}
	x.put(remote.SignerKey(x.writer, n), c.Key.File())
	x.put(remote.SignatureKey(remote.SignerKey(x.writer, n)), remote.SignCertificate(key("root"), c))
}

// put puts an object unless it is there.
func (x *world) put(key string, body []byte) {
	x.t.Helper()
	if err := x.Put(context.Background(), key, body); err != nil && !errors.Is(err, remote.ErrExists) {
		x.t.Fatal(err)
	}
}

func (x *world) remove(keys ...string) {
	x.t.Helper()
	for _, key := range keys {
		if err := x.Delete(context.Background(), key); err != nil {
			x.t.Fatal(err)
		}
	}
}

// snap is a run in words.
type snap struct {
	blobs, pins  string // "1/a 2/b"
	dumps        string // "" is one of its own, called "dump"
	pinnedDumps  string
	list         string // a list that the run stores, "" for none
	sameList     bool   // its blobs are the difference to the list of the run before
	started, end string
}

// objects reads names such as "1/a 2/b".
func objects(names string) []remote.Object {
	list := []remote.Object{}
	for name := range strings.FieldsSeq(names) {
		var o remote.Object
		number, body, _ := strings.Cut(name, "/")
		fmt.Sscan(number, &o.Seq)
		o.SHA256, o.Size = remote.Sum([]byte(body)), int64(len(body))
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b remote.Object) int { return remote.CompareNames(a.Name(), b.Name()) })
	return list
}

// upload puts those of the named objects that run seq uploads.
func (x *world) upload(seq remote.Seq, names string, at func(string, remote.Seq, remote.Hash) string) {
	x.t.Helper()
	for name := range strings.FieldsSeq(names) {
		if number, body, _ := strings.Cut(name, "/"); number == fmt.Sprint(uint64(seq)) {
			x.put(at(x.writer, seq, remote.Sum([]byte(body))), []byte(body))
		}
	}
}

func (x *world) next() remote.Seq { return remote.Seq(len(x.runs) + 1) }

// run makes the next run: all of its objects, and the manifest last.
func (x *world) run(s snap) {
	x.t.Helper()
	m := x.prepare(s)
	x.commit(m)
}

// prepare uploads all but the manifest and its signature.
func (x *world) prepare(s snap) *remote.Manifest {
	x.t.Helper()
	seq := x.next()
	if s.dumps == "" {
		s.dumps = fmt.Sprintf("%d/dump", seq)
	}
	started, end := s.started, s.end
	if started == "" {
		started, end = "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z"
	}
	x.upload(seq, s.blobs+" "+s.pins, remote.BlobKey)
	x.upload(seq, s.dumps+" "+s.pinnedDumps, remote.DumpKey)
	m := &remote.Manifest{
		Format: 1, Requires: []string{}, Type: remote.TypeManifest, Writer: x.writer, Seq: seq,
		Snapshot: x.writer + "-20260102-030405Z", Set: "default", Started: started, Finished: end, Version: "1.0.0",
		PinnedDumps: objects(s.pinnedDumps), Recipients: []string{remote.Sum([]byte("a recipient")).String()},
		Parameters: remote.Parameters{Chunker: "fastcdc", ChunkMin: 256 << 10, ChunkAvg: 1 << 20, ChunkMax: 4 << 20},
	}
	for _, o := range objects(s.dumps) {
		m.Dumps = append(m.Dumps, remote.DumpPart{Object: o, PlainSize: 1})
	}
	var ref *remote.ListRef
	if s.list != "" {
		list := objects(s.list)
		body, plain := remote.EncodeList(list)
		ref = &remote.ListRef{Object: remote.Object{Seq: seq, SHA256: remote.Sum(body), Size: int64(len(body))}, PlainSize: plain, Count: int64(len(list))}
		x.put(remote.ListKey(x.writer, seq, ref.SHA256), body)
		x.lists[ref.SHA256] = list
	} else if s.sameList {
		ref = x.runs[seq-2].Manifest.Blobs.List
	}
	m.Blobs, m.Pins = remote.Diff(nil, nil, objects(s.blobs)), remote.Diff(nil, nil, objects(s.pins))
	if ref != nil {
		m.Blobs = remote.Diff(ref, x.lists[ref.SHA256], objects(s.blobs))
		m.Pins = remote.Diff(ref, x.lists[ref.SHA256], objects(s.pins))
	}
	if seq > 1 {
		m.Previous = &x.runs[seq-2].Hash
	}
	return m
}

func (x *world) commit(m *remote.Manifest) {
	x.t.Helper()
	object, err := m.Encode()
	if err != nil {
		x.t.Fatal(err)
	}
	x.runs = append(x.runs, remote.Verified{Manifest: m, Hash: remote.Sum(object), Size: int64(len(object))})
	at := remote.ManifestKey(x.writer, m.Seq)
	x.put(remote.SignatureKey(at), key(x.writer).Sign(object, remote.ManifestComment(x.writer, m.Seq)))
	x.put(at, object)
}

// send puts a run's manifest once more, as a request that was delayed.
func (x *world) send(seq remote.Seq) {
	x.t.Helper()
	object, err := x.runs[seq-1].Manifest.Encode()
	if err != nil {
		x.t.Fatal(err)
	}
	x.put(remote.ManifestKey(x.writer, seq), object)
}

// bury puts the tombstone of a run.
func (x *world) bury(seq remote.Seq, by string) {
	x.t.Helper()
	v := x.runs[seq-1]
	x.buryAs(seq, v.Hash, v.Manifest.Previous, by)
}

func (x *world) buryAs(seq remote.Seq, hash remote.Hash, previous *remote.Hash, by string) {
	x.t.Helper()
	object, err := remote.NewTombstone(x.writer, seq, hash, previous, time.Unix(1_800_000_000, 0)).Sign(key(by))
	if err != nil {
		x.t.Fatal(err)
	}
	x.put(remote.TombstoneKey(x.writer, seq), object)
}

// purge forgets runs.
func (x *world) purge(seqs ...remote.Seq) {
	x.t.Helper()
	for _, seq := range seqs {
		x.bury(seq, "ann")
		x.remove(remote.ManifestKey(x.writer, seq))
	}
}

func (x *world) options() prune.Options {
	return prune.Options{Store: x.Store, Root: key("root").Public()}
}

func (x *world) look() *prune.Plan {
	x.t.Helper()
	p, err := prune.Look(context.Background(), x.options(), x.writer)
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

func (x *world) prune() *prune.Plan {
	x.t.Helper()
	p := x.look()
	if p.Stopped != nil {
		x.t.Fatal(p.Stopped)
	}
	freed, err := p.Delete(context.Background(), x.Store, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	if freed != p.Freed() {
		x.t.Errorf("freed %+v, planned %+v", freed, p.Freed())
	}
	return p
}

// left says what is in the store, signers apart: blobs and dumps by their
// names, the rest by kind and run.
func (x *world) left() string {
	x.t.Helper()
	var words []string
	for _, key := range x.keys() {
		k, err := remote.ParseKey(key)
		word := fmt.Sprintf("%s:%d", k.Kind, k.Seq)
		switch {
		case err != nil:
			word = key
		case k.Kind == remote.KindSigner:
			continue
		case k.Signature:
			word = fmt.Sprintf("minisig:%d", k.Seq)
		case k.Kind == remote.KindBlob:
			word = fmt.Sprintf("%d/%s", k.Seq, x.read(key))
		case k.Kind == remote.KindDump:
			word = fmt.Sprintf("dump:%d/%s", k.Seq, x.read(key))
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// blobs is left without anything but blobs.
func (x *world) blobs() string {
	return strings.Join(slices.DeleteFunc(strings.Fields(x.left()), func(word string) bool {
		return strings.Contains(word, ":") || strings.HasPrefix(word, x.writer+"/")
	}), " ")
}

func (x *world) keys() []string {
	var keys []string
	for info, err := range x.List(context.Background(), "") {
		if err != nil {
			x.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func (x *world) read(key string) []byte {
	x.t.Helper()
	r, err := x.Get(context.Background(), key, 0, -1)
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		x.t.Fatal(err)
	}
	return b.Bytes()
}

// whole fails the test if an object is missing that a retained snapshot, or
// the next run, may refer to. It knows that from what was committed, not from
// the store.
func (x *world) whole() {
	x.t.Helper()
	there := make(map[string]bool)
	for _, key := range x.keys() {
		there[key] = true
	}
	for key := range x.wanted() {
		if !there[key] {
			x.t.Fatalf("%s is gone", key)
		}
	}
}

// wanted is the rule in its plainest form: the keys that no prune may touch,
// though its number is up to the newest manifest's.
func (x *world) wanted() map[string]bool {
	x.t.Helper()
	keys := make(map[string]bool)
	for i, v := range x.runs {
		newest := i == len(x.runs)-1
		if _, err := x.Stat(context.Background(), remote.TombstoneKey(x.writer, v.Manifest.Seq)); err == nil && !newest {
			continue
		}
		m := v.Manifest
		keys[remote.ManifestKey(x.writer, m.Seq)] = true
		for _, d := range m.Dumps {
			keys[remote.DumpKey(x.writer, d.Seq, d.SHA256)] = true
		}
		for _, d := range m.PinnedDumps {
			keys[remote.DumpKey(x.writer, d.Seq, d.SHA256)] = true
		}
		for i, set := range []remote.ObjectList{m.Blobs, m.Pins} {
			all, err := set.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
				keys[remote.ListKey(x.writer, ref.Seq, ref.SHA256)] = true
				return x.lists[ref.SHA256], nil
			})
			if err != nil {
				x.t.Fatal(err)
			}
			for _, o := range all {
				if i == 0 || newest { // only the newest's pins count
					keys[remote.BlobKey(x.writer, o.Seq, o.SHA256)] = true
				}
			}
		}
	}
	return keys
}

func copyOf(x *world) *world {
	c := *x
	c.Store = mem.New(nil)
	c.runs, c.lists = slices.Clone(x.runs), maps.Clone(x.lists)
	for _, key := range x.keys() {
		c.put(key, x.read(key))
	}
	return &c
}

// text is the JSON of a run's manifest.
func (x *world) text(seq remote.Seq) string {
	x.t.Helper()
	r, err := zstd.NewReader(bytes.NewReader(x.read(remote.ManifestKey(x.writer, seq))))
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(text)
}

// replace puts another manifest in a run's place, signed as it should be.
func (x *world) replace(seq remote.Seq, text string) {
	x.t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		x.t.Fatal(err)
	}
	object := w.EncodeAll([]byte(text), nil)
	at := remote.ManifestKey(x.writer, seq)
	x.remove(at, remote.SignatureKey(at))
	x.put(remote.SignatureKey(at), key(x.writer).Sign(object, remote.ManifestComment(x.writer, seq)))
	x.put(at, object)
}

// hiding is a store whose listings of some prefix lack some keys.
type hiding struct {
	remote.Store
	prefix string // regular expression
	keys   []string
}

func (h *hiding) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		hide := regexp.MustCompile(h.prefix).MatchString(prefix)
		for info, err := range h.Store.List(ctx, prefix) {
			if err == nil && hide && slices.Contains(h.keys, info.Key) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// sequential is a store that answers one request at a time, so that something
// else can happen between any two.
type sequential struct {
	remote.Store
	mu sync.Mutex
}

func (s *sequential) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Get(ctx, key, off, n)
}

func (s *sequential) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Delete(ctx, key)
}

func (s *sequential) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		s.mu.Lock()
		var all []remote.Info
		var failed error
		for info, err := range s.Store.List(ctx, prefix) {
			if failed = err; err == nil {
				all = append(all, info)
			}
		}
		s.mu.Unlock()
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
		if failed != nil {
			yield(remote.Info{}, failed)
		}
	}
}

func matches(t tester, pattern string, err error) {
	t.Helper()
	if !regexp.MustCompile(`(?s)` + pattern).MatchString(err.Error()) {
		t.Errorf("%q does not say %q", err, pattern)
	}
}
