package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
)

func object(seq remote.Seq, name string, size int64) remote.Object {
	return remote.Object{Seq: seq, SHA256: remote.Sum([]byte(name)), Size: size}
}

// manifest is a valid manifest of a run that uploaded one blob.
func manifest(writer string, seq remote.Seq, previous *remote.Hash) *remote.Manifest {
	return &remote.Manifest{
		Format: 1, Requires: []string{}, Type: remote.TypeManifest, Writer: writer, Seq: seq, Previous: previous,
		Snapshot: writer + "-20260102-030405Z", Set: "default", Tags: []string{},
		Started: "2026-01-02T03:04:05Z", Finished: "2026-01-02T03:05:00Z", Version: "1.0.0",
		Totals:      remote.Totals{Files: 3, Bytes: 5000, NewFiles: 3, NewBytes: 5000, StoredBytes: 2400},
		Rows:        remote.Rows{Volumes: 1, Paths: 3, Files: 3, Contents: 1, FileChunks: 1, Chunks: 1, Blobs: 1, BlobChunks: 1},
		Dumps:       []remote.DumpPart{{Object: object(seq, "dump", 3000), PlainSize: 4096}},
		PinnedDumps: []remote.Object{},
		Blobs:       remote.ObjectList{Add: []remote.Object{object(seq, "blob", 2400)}, Drop: []remote.Name{}},
		Pins:        remote.ObjectList{Add: []remote.Object{}, Drop: []remote.Name{}},
		Recipients:  []string{remote.Sum([]byte("a recipient")).String()},
		Parameters:  remote.Parameters{Chunker: "fastcdc", ChunkMin: 256 << 10, ChunkAvg: 1 << 20, ChunkMax: 4 << 20},
	}
}

// second is a valid manifest that uses everything a manifest can say.
func second(previous remote.Hash) *remote.Manifest {
	m := manifest("host", 2, &previous)
	m.Snapshot, m.Tags = "host-20260103-030405Z-2", []string{"before the upgrade", "größer"}
	m.Dumps = []remote.DumpPart{
		{Object: object(1, "base", 3000), PlainSize: 4096}, {Object: object(2, "difference", 300), PlainSize: 400},
	}
	m.PinnedDumps = []remote.Object{object(1, "base of another set", 3001)}
	list := listRef(1)
	m.Blobs = remote.ObjectList{List: &list, Add: []remote.Object{object(2, "new", 5000)}, Drop: []remote.Name{blobsOf(1)[1].Name()}}
	m.Pins = remote.ObjectList{Add: blobsOf(1)[1:2], Drop: []remote.Name{}}
	m.Recipients = append(m.Recipients, remote.Sum([]byte("another")).String())
	slices.Sort(m.Recipients)
	return m
}

// blobsOf returns three blobs of a run, sorted.
func blobsOf(seq remote.Seq) []remote.Object {
	b := []remote.Object{object(seq, "a", 1), object(seq, "b", 33_000_000), object(seq, "c", 1<<30)}
	slices.SortFunc(b, func(x, y remote.Object) int { return bytes.Compare(x.SHA256[:], y.SHA256[:]) })
	return b
}

func listRef(seq remote.Seq) remote.ListRef {
	list, plain := remote.EncodeList(blobsOf(seq))
	return remote.ListRef{
		Object:    remote.Object{Seq: seq, SHA256: remote.Sum(list), Size: int64(len(list))},
		PlainSize: plain, Count: 3,
	}
}

func encode(t testing.TB, m *remote.Manifest) []byte {
	t.Helper()
	object, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func pack(t testing.TB, plain []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(plain, nil)
}

func unpack(t testing.TB, object []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plain, err := r.DecodeAll(object, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestManifestsSurviveTheirBytes(t *testing.T) {
	for name, m := range map[string]*remote.Manifest{"first": manifest("host", 1, nil), "second": second(h)} {
		got, err := remote.DecodeManifest(encode(t, m))
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestAManifestWithoutListsDecodesWithEmptyOnes(t *testing.T) {
	m := manifest("host", 1, nil)
	m.Requires, m.Tags, m.PinnedDumps, m.Pins = nil, nil, nil, remote.ObjectList{}
	got, err := remote.DecodeManifest(encode(t, m))
	if diff := cmp.Diff(manifest("host", 1, nil), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What Encode refuses to sign, each from one wrong field.
func TestInvalidManifestsAreNotEncoded(t *testing.T) {
	for name, spoil := range map[string]func(*remote.Manifest){
		"format 2":                  func(m *remote.Manifest) { m.Format = 2 },
		"a feature":                 func(m *remote.Manifest) { m.Requires = []string{"x"} },
		"another type":              func(m *remote.Manifest) { m.Type = remote.TypeTombstone },
		"no writer":                 func(m *remote.Manifest) { m.Writer = "" },
		"no seq":                    func(m *remote.Manifest) { m.Seq = 0 },
		"a seq of eleven digits":    func(m *remote.Manifest) { m.Seq = remote.MaxSeq + 1 },
		"no previous":               func(m *remote.Manifest) { m.Previous = nil },
		"another writer's snapshot": func(m *remote.Manifest) { m.Snapshot = "other-20260102-030405Z" },
		"a snapshot without time":   func(m *remote.Manifest) { m.Snapshot = "host" },
		"a snapshot number 1":       func(m *remote.Manifest) { m.Snapshot = "host-20260102-030405Z-1" },
		"a set with a slash":        func(m *remote.Manifest) { m.Set = "a/b" },
		"an empty tag":              func(m *remote.Manifest) { m.Tags[0] = "" },
		"a tag with a quote":        func(m *remote.Manifest) { m.Tags[0] = `"` },
		"a tag that is no UTF-8":    func(m *remote.Manifest) { m.Tags[0] = "\xff" },
		"a tag of two lines":        func(m *remote.Manifest) { m.Tags[0] = "a\u2028b" },
		"a tag above the limit":     func(m *remote.Manifest) { m.Tags[0] = strings.Repeat("a", 129) },
		"a tag twice":               func(m *remote.Manifest) { m.Tags[1] = m.Tags[0] },
		"tags out of order":         func(m *remote.Manifest) { slices.Reverse(m.Tags) },
		"65 tags":                   func(m *remote.Manifest) { m.Tags = manyTags(65) },
		"a local time":              func(m *remote.Manifest) { m.Started = "2026-01-02T03:04:05+01:00" },
		"a fraction of a second":    func(m *remote.Manifest) { m.Finished = "2026-01-02T03:04:05.5Z" },
		"a quote":                   func(m *remote.Manifest) { m.Version = `1"` },
		"a backslash":               func(m *remote.Manifest) { m.Version = `1\` },
		"a letter beyond ASCII":     func(m *remote.Manifest) { m.Version = "ä" },
		"no chunker":                func(m *remote.Manifest) { m.Parameters.Chunker = "" },
		"chunks above the limit":    func(m *remote.Manifest) { m.Parameters.ChunkMax = remote.MaxChunk + 1 },
		"a minimum above average":   func(m *remote.Manifest) { m.Parameters.ChunkMin = 2 << 20 },
		"a negative total":          func(m *remote.Manifest) { m.Totals.Bytes = -1 },
		"a number jq cannot read":   func(m *remote.Manifest) { m.Rows.BlobChunks = 1 << 53 },
		"no dump":                   func(m *remote.Manifest) { m.Dumps = nil },
		"a dump twice":              func(m *remote.Manifest) { m.Dumps = append(m.Dumps, m.Dumps[0]) },
		"a dump from the future":    func(m *remote.Manifest) { m.Dumps[0].Seq = 3 },
		"a dump above the limit":    func(m *remote.Manifest) { m.Dumps[0].Size = remote.MaxDumpPart + 1 },
		"a dump without text":       func(m *remote.Manifest) { m.Dumps[0].PlainSize = 0 },
		"a pinned dump twice":       func(m *remote.Manifest) { m.PinnedDumps = append(m.PinnedDumps, m.PinnedDumps[0]) },
		"a blob without bytes":      func(m *remote.Manifest) { m.Blobs.Add[0].Size = 0 },
		"a blob above the limit":    func(m *remote.Manifest) { m.Blobs.Add[0].Size = remote.MaxBlob + 1 },
		"a blob twice":              func(m *remote.Manifest) { m.Blobs.Add = append(m.Blobs.Add, m.Blobs.Add[0]) },
		"blobs out of order":        func(m *remote.Manifest) { m.Pins.Add = []remote.Object{blobsOf(1)[1], blobsOf(1)[0]} },
		"a blob added and dropped":  func(m *remote.Manifest) { m.Blobs.Add = blobsOf(1)[1:2] },
		"a drop from no list":       func(m *remote.Manifest) { m.Pins.Drop = m.Blobs.Drop },
		"a drop from the future":    func(m *remote.Manifest) { m.Blobs.Drop[0].Seq = 3 },
		"more drops than blobs":     func(m *remote.Manifest) { m.Blobs.List.Count = 0 },
		"a list above the limit":    func(m *remote.Manifest) { m.Blobs.List.PlainSize = remote.MaxList + 1 },
		"no recipient":              func(m *remote.Manifest) { m.Recipients = nil },
		"recipients out of order":   func(m *remote.Manifest) { slices.Reverse(m.Recipients) },
		"a recipient in clear":      func(m *remote.Manifest) { m.Recipients[0] = "age1xyz" },
	} {
		m := second(h)
		spoil(m)
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func manyTags(n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprintf("tag %03d", i)
	}
	return tags
}

// brokenManifest is the JSON of second(h) with a change that a careless reader
// would not notice, or would understand in a way of its own.
type brokenManifest struct {
	name     string
	old, new string
	want     error
}

var brokenManifests = []brokenManifest{
	{"format-2", `{"format":1,`, `{"format":2,"news":true,`, remote.ErrUnsupported},
	{"format-text", `{"format":1,`, `{"format":"1",`, remote.ErrUnsupported},
	{"format-missing", `{"format":1,`, `{`, remote.ErrUnsupported},
	{"requires-unknown", `"requires":[]`, `"requires":["padding"]`, remote.ErrUnsupported},
	{"requires-null", `"requires":[]`, `"requires":null`, remote.ErrCorrupt},
	{"requires-no-list", `"requires":[]`, `"requires":"padding"`, remote.ErrCorrupt},
	{"type-tombstone", `"type":"manifest"`, `"type":"tombstone"`, remote.ErrCorrupt},
	{"key-twice", `"seq":2,"previous"`, `"seq":1,"seq":2,"previous"`, remote.ErrCorrupt},
	{"key-twice-other-case", `"seq":2,"previous"`, `"Seq":1,"seq":2,"previous"`, remote.ErrCorrupt},
	{"key-unknown", `"set":"default"`, `"set":"default","note":"x"`, remote.ErrCorrupt},
	{"key-other-case", `"set":"default"`, `"Set":"default"`, remote.ErrCorrupt},
	{"key-missing", `"set":"default",`, ``, remote.ErrCorrupt},
	{"keys-swapped", `"writer":"host","seq":2`, `"seq":2,"writer":"host"`, remote.ErrCorrupt},
	{"blank", `"bytes":5000`, `"bytes": 5000`, remote.ErrCorrupt},
	{"escape", `"set":"default"`, `"set":"d\u0065fault"`, remote.ErrCorrupt},
	{"html-escape", `"version":"1.0.0"`, `"version":"\u003c1"`, remote.ErrCorrupt},
	{"tags-null", `"tags":["before the upgrade","größer"]`, `"tags":null`, remote.ErrCorrupt},
	{"tags-missing", `"tags":["before the upgrade","größer"],`, ``, remote.ErrCorrupt},
	{"tags-escaped", `größer`, `gr\u00f6\u00dfer`, remote.ErrCorrupt},
	{"number-exponent", `"bytes":5000`, `"bytes":5e3`, remote.ErrCorrupt},
	{"number-fraction", `"bytes":5000`, `"bytes":5000.0`, remote.ErrCorrupt},
	{"number-leading-zero", `"bytes":5000`, `"bytes":05000`, remote.ErrCorrupt},
	{"number-negative", `"bytes":5000`, `"bytes":-1`, remote.ErrCorrupt},
	{"number-minus-zero", `"xattrs":0`, `"xattrs":-0`, remote.ErrCorrupt},
	{"number-too-big", `"bytes":5000`, `"bytes":9007199254740992`, remote.ErrCorrupt},
	{"hash-upper-case", h.String(), strings.ToUpper(h.String()), remote.ErrCorrupt},
	{"hash-short", h.String(), h.String()[1:], remote.ErrCorrupt},
	{"hash-null", `"list":null,"add":[{"seq":1,"sha256":"` + blobsOf(1)[1].SHA256.String() + `"`, `"list":null,"add":[{"seq":1,"sha256":null`, remote.ErrCorrupt},
	{"previous-null", `"previous":"` + h.String() + `"`, `"previous":null`, remote.ErrCorrupt},
	{"array-null", `"drop":[]`, `"drop":null`, remote.ErrCorrupt},
	{"trailing-blank", "}\n", "}\n ", remote.ErrCorrupt},
	{"trailing-object", "}\n", "}\n{}\n", remote.ErrCorrupt},
	{"no-line-end", "}\n", "}", remote.ErrCorrupt},
	{"byte-order-mark", `{"format":1,`, "\ufeff" + `{"format":1,`, remote.ErrCorrupt},
	{"snapshot-of-another", `"host-20260103`, `"tosh-20260103`, remote.ErrCorrupt},
	{"time-not-canonical", `T03:05:00Z`, `T03:05:00+00:00`, remote.ErrCorrupt},
}

// spoil returns the object of a broken manifest.
func (b brokenManifest) spoil(t testing.TB) []byte {
	t.Helper()
	plain := string(unpack(t, encode(t, second(h))))
	if strings.Count(plain, b.old) != 1 {
		t.Fatalf("%s: %q is %d times in %s", b.name, b.old, strings.Count(plain, b.old), plain)
	}
	return pack(t, []byte(strings.Replace(plain, b.old, b.new, 1)))
}

func TestBrokenManifestsAreRefused(t *testing.T) {
	for _, b := range brokenManifests {
		if _, err := remote.DecodeManifest(b.spoil(t)); !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.name, err, b.want)
		}
	}
}

func TestAnUnknownFormatIsRefusedByName(t *testing.T) {
	for _, plain := range []string{`{"format":7}`, `{"format":1,"requires":["format 7"]}`} {
		_, err := remote.DecodeManifest(pack(t, []byte(plain)))
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), "7") {
			t.Errorf("%s: %v", plain, err)
		}
	}
}

func TestBrokenCompressionIsRefused(t *testing.T) {
	good := encode(t, manifest("host", 1, nil))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, object := range map[string][]byte{
		"nothing": {}, "text": unpack(t, good), "truncated": good[:len(good)-1], "flipped": flipped,
		"a byte behind": append(bytes.Clone(good), 0), "a second frame": append(bytes.Clone(good), pack(t, []byte("{}"))...),
	} {
		if _, err := remote.DecodeManifest(object); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// bomb is a zstd frame of four bytes a block, each of which says "128 KiB of
// the same byte".
func bomb(plain int) []byte {
	const block = 128 << 10
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3} // magic, no options, a window of one block
	for at := 0; at < plain; at += block {
		header := block<<3 | 1<<1 // size, type "RLE"
		if at+block >= plain {
			header |= 1 // the last one
		}
		frame = append(frame, byte(header), byte(header>>8), byte(header>>16), ' ')
	}
	return frame
}

func TestABombIsRefused(t *testing.T) {
	if _, err := remote.DecodeList(bomb(1<<30), 4096); !errors.Is(err, remote.ErrCorrupt) || !strings.Contains(err.Error(), "more than 4096") {
		t.Errorf("list: %v, want ErrCorrupt", err)
	}
	if testing.Short() {
		t.Skip("decompresses 256 MiB, slow with the race detector")
	}
	if _, err := remote.DecodeManifest(bomb(remote.MaxManifest + 1)); !errors.Is(err, remote.ErrCorrupt) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("manifest: %v, want ErrCorrupt", err)
	}
}

// A byte changed anywhere in the text is noticed, or is another manifest with
// the same text as its own encoding: there is one text for each meaning.
func TestEveryManifestHasOneText(t *testing.T) {
	plain := unpack(t, encode(t, second(h)))
	rapid.Check(t, func(rt *rapid.T) {
		changed := bytes.Clone(plain)
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			changed[rapid.IntRange(0, len(changed)-1).Draw(rt, "where")] = rapid.Byte().Draw(rt, "byte")
		}
		m, err := remote.DecodeManifest(pack(t, changed))
		if err == nil && !bytes.Equal(unpack(t, encode(t, m)), changed) {
			rt.Errorf("two texts:\n%s\n%s", changed, unpack(t, encode(t, m)))
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add(encode(f, manifest("host", 1, nil)), false)
	f.Add(unpack(f, encode(f, second(h))), true)
	f.Add([]byte(`{"format":1,"requires":[]}`), true)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd}, false)
	f.Fuzz(func(t *testing.T, object []byte, compress bool) {
		if compress {
			object = pack(t, object)
		}
		m, err := remote.DecodeManifest(object)
		if err != nil {
			if !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, remote.ErrUnsupported) {
				t.Errorf("%v is neither ErrCorrupt nor ErrUnsupported", err)
			}
			return
		}
		if again := encode(t, m); !bytes.Equal(unpack(t, again), unpack(t, object)) {
			t.Errorf("accepted %q", unpack(t, object))
		}
	})
}
