package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// person is a key pair from testdata, "x25519" or "hybrid".
type person struct {
	public     string
	recipients []age.Recipient
	identities []age.Identity
}

func load(t testing.TB, kind string) person {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", kind+".identity"))
	if err != nil {
		t.Fatal(err)
	}
	var p person
	if p.identities, err = seal.ParseIdentities(bytes.NewReader(text), kind); err != nil {
		t.Fatal(err)
	}
	switch id := p.identities[0].(type) {
	case *age.X25519Identity:
		p.public = id.Recipient().String()
	case *age.HybridIdentity:
		p.public = id.Recipient().String()
	default:
		t.Fatalf("%s holds a %T", kind, id)
	}
	if p.recipients, err = seal.ParseRecipients([]string{p.public}); err != nil {
		t.Fatal(err)
	}
	return p
}

func newPerson(t testing.TB, kind string) person {
	t.Helper()
	var p person
	switch kind {
	case "x25519":
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		p.public, p.identities = id.Recipient().String(), []age.Identity{id}
	case "hybrid":
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		p.public, p.identities = id.Recipient().String(), []age.Identity{id}
	}
	var err error
	if p.recipients, err = seal.ParseRecipients([]string{p.public}); err != nil {
		t.Fatal(err)
	}
	return p
}

func sealed(t testing.TB, r []age.Recipient, plain []byte) []byte {
	t.Helper()
	p, err := seal.NewPart(r, seal.Default)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(plain); err != nil {
		t.Fatal(err)
	}
	object, err := p.Close()
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// encrypted is an age file of exactly these bytes, without compression.
func encrypted(t testing.TB, r []age.Recipient, packed []byte) []byte {
	t.Helper()
	var object bytes.Buffer
	w, _, err := seal.Encrypt(&object, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(packed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return object.Bytes()
}

func open(object []byte, ids []age.Identity, plainSize int64) ([]byte, error) {
	r, err := seal.Open(object, ids, plainSize)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestWhatIsSealedComesBack(t *testing.T) {
	people := []person{newPerson(t, "x25519"), newPerson(t, "hybrid")}
	rapid.Check(t, func(rt *rapid.T) {
		p := people[rapid.IntRange(0, 1).Draw(rt, "key")]
		level := seal.Level(rapid.IntRange(0, 4).Draw(rt, "level"))
		text := rapid.Bool().Draw(rt, "text")
		part, err := seal.NewPart(p.recipients, level)
		if err != nil {
			rt.Fatal(err)
		}
		var want []byte
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 300_000), 0, 6).Draw(rt, "writes") {
			b := random(uint64(i), n)
			if text {
				b = bytes.Repeat([]byte("INSERT INTO files "), n/18)
			}
			if _, err := part.Write(b); err != nil {
				rt.Fatal(err)
			}
			want = append(want, b...)
		}
		if part.PlainSize() != int64(len(want)) {
			rt.Fatalf("PlainSize is %d after %d bytes", part.PlainSize(), len(want))
		}
		bound := part.Size()
		object, err := part.Close()
		if err != nil {
			rt.Fatal(err)
		}
		if size := int64(len(object)); size > bound || size < bound-(128<<10)-200 {
			rt.Fatalf("Size announced at most %d bytes, the object has %d", bound, size)
		}
		got, err := open(object, p.identities, int64(len(want)))
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			rt.Fatal("other bytes came back")
		}
	})
}

func TestReadersMayReadInAnyWay(t *testing.T) {
	p := newPerson(t, "x25519")
	want := random(7, 300_000)
	r, err := seal.Open(sealed(t, p.recipients, want), p.identities, int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := iotest.TestReader(r, want); err != nil {
		t.Error(err)
	}
}

func TestSeveralRecipientsAllOpen(t *testing.T) {
	for _, kind := range []string{"x25519", "hybrid"} {
		a, b, stranger := newPerson(t, kind), newPerson(t, kind), newPerson(t, kind)
		both, err := seal.ParseRecipients([]string{a.public, b.public})
		if err != nil {
			t.Fatal(err)
		}
		object := sealed(t, both, []byte("hello"))
		for name, p := range map[string]person{"first": a, "second": b} {
			if got, err := open(object, p.identities, 5); err != nil || string(got) != "hello" {
				t.Errorf("%s, %s recipient: %q, %v", kind, name, got, err)
			}
		}
		if got, err := open(object, append(stranger.identities, b.identities...), 5); err != nil || string(got) != "hello" {
			t.Errorf("%s, a stranger's identity first: %q, %v", kind, got, err)
		}
	}
}

func TestAStrangerIsToldSoAndNotThatTheObjectIsDamaged(t *testing.T) {
	for _, kind := range []string{"x25519", "hybrid"} {
		object := sealed(t, newPerson(t, kind).recipients, []byte("hello"))
		for name, ids := range map[string][]age.Identity{
			"x25519": newPerson(t, "x25519").identities, "hybrid": newPerson(t, "hybrid").identities, "no": nil,
		} {
			_, err := open(object, ids, 5)
			if !errors.Is(err, seal.ErrNoIdentity) || errors.Is(err, remote.ErrCorrupt) {
				t.Errorf("%s object, %s identity: %v", kind, name, err)
			}
		}
	}
}

func TestDamageIsNoticed(t *testing.T) {
	p := newPerson(t, "x25519")
	plain := random(3, 200_000)
	good := sealed(t, p.recipients, plain)
	size := int64(len(plain))
	frame, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	packed := frame.EncodeAll(plain, nil)
	// zstd streams that end exactly where an age piece does: what follows is
	// seen only by a reader that goes on to the end.
	const first = seal.PieceSize - 14 // random bytes that make a frame of one piece
	short := frame.EncodeAll(random(4, first), nil)
	if len(short) != seal.PieceSize {
		t.Fatalf("the frame has %d bytes", len(short))
	}
	twoPieces := encrypted(t, p.recipients, append(short[:len(short):len(short)], frame.EncodeAll([]byte("more"), nil)...))
	header := bytes.Index(twoPieces, []byte("\n--- ")) + 48
	hugeWindow := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 16 << 3, 0x01, 0, 0} // window 2^26, one empty raw block
	for _, c := range []struct {
		name   string
		object []byte
		size   int64
	}{
		{"empty", nil, size},
		{"not an age file", []byte("hello"), size},
		{"header cut", good[:100], size},
		{"nonce cut", good[:header+8], size},
		{"last byte cut", good[:len(good)-1], size},
		{"last piece cut", good[:header+16+2*seal.SealedSize], size},
		{"one byte more", append(bytes.Clone(good), 0), size},
		{"first payload byte flipped", flip(good, header+16), size},
		{"last byte flipped", flip(good, len(good)-1), size},
		{"MAC flipped", flip(good, header-3), size},
		{"shorter than promised", good, size + 1},
		{"longer than promised", good, size - 1},
		{"promised nothing", good, 0},
		{"not zstd", encrypted(t, p.recipients, []byte("hello, this is no zstd frame")), 5},
		{"no frame at all", encrypted(t, p.recipients, nil), 5},
		{"zstd frame cut", encrypted(t, p.recipients, packed[:len(packed)-4]), size},
		{"zstd checksum wrong", encrypted(t, p.recipients, flip(packed, len(packed)-1)), size},
		{"bytes behind the frame", encrypted(t, p.recipients, append(packed[:len(packed):len(packed)], "trailing"...)), size},
		{"a second frame", encrypted(t, p.recipients, append(packed[:len(packed):len(packed)], packed...)), size},
		{"last piece cut, frame whole", twoPieces[:header+16+seal.SealedSize], first},
		{"frame whole, piece behind it damaged", flip(twoPieces, len(twoPieces)-1), first},
		{"window of 64 MiB", encrypted(t, p.recipients, hugeWindow), 0},
		{"header above the limit", longHeader(t, p, packed), size},
	} {
		got, err := open(c.object, p.identities, c.size)
		if !errors.Is(err, remote.ErrCorrupt) || errors.Is(err, seal.ErrNoIdentity) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
		if int64(len(got)) > c.size {
			t.Errorf("%s: %d bytes, promised were %d", c.name, len(got), c.size)
		}
	}
	if _, err := open(good, p.identities, size); err != nil {
		t.Fatalf("undamaged: %v", err)
	}
}

// longHeader is an age file with a header of 68 KB, in order otherwise.
func longHeader(t *testing.T, p person, packed []byte) []byte {
	t.Helper()
	var object bytes.Buffer
	w, err := age.Encrypt(&object, slices.Repeat(p.recipients, 700)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(packed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return object.Bytes()
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestEveryFlippedBitOfASmallObjectIsNoticed(t *testing.T) {
	p := newPerson(t, "x25519")
	object := sealed(t, p.recipients, []byte("a small dump"))
	for i := range object {
		got, err := open(flip(object, i), p.identities, 12)
		if !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, seal.ErrNoIdentity) {
			t.Errorf("byte %d: %q, %v", i, got, err)
		}
	}
}

func TestAPartIsClosedOnce(t *testing.T) {
	part, err := seal.NewPart(newPerson(t, "x25519").recipients, seal.Fastest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := part.Close(); err == nil {
		t.Error("the second Close succeeds")
	}
	if _, err := part.Write([]byte("late")); err == nil {
		t.Error("Write after Close succeeds")
	}
}

func TestAClosedStreamReadsNothing(t *testing.T) {
	p := newPerson(t, "x25519")
	r, err := seal.Open(sealed(t, p.recipients, []byte("hello")), p.identities, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 5)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestSizesAreThoseOfAge(t *testing.T) {
	p := newPerson(t, "x25519")
	for _, n := range []int{0, 1, seal.PieceSize - 1, seal.PieceSize, seal.PieceSize + 1, 3 * seal.PieceSize, 200_000} {
		var object bytes.Buffer
		w, header, err := seal.Encrypt(&object, p.recipients)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, got, err := seal.Unlock(object.Bytes(), p.identities); err != nil || got != header {
			t.Errorf("%d bytes: Encrypt says the header has %d bytes, Unlock %d, %v", n, header, got, err)
		}
		if got := seal.ObjectSize(header, int64(n)); got != int64(object.Len()) {
			t.Errorf("%d bytes: ObjectSize is %d, the object has %d", n, got, object.Len())
		}
		if got, err := seal.PlainSize(header, int64(object.Len())); err != nil || got != int64(n) {
			t.Errorf("%d bytes: PlainSize is %d, %v", n, got, err)
		}
	}
}

func TestPlainSizeIsTheExactInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header, object := rapid.Int64().Draw(t, "header"), rapid.Int64().Draw(t, "object")
		if rapid.Bool().Draw(t, "plausible") {
			header, object = 200, 200+16+rapid.Int64Range(0, 5*seal.SealedSize).Draw(t, "payload")
		}
		plain, err := seal.PlainSize(header, object)
		if err == nil && (plain < 0 || seal.ObjectSize(header, plain) != object) {
			t.Fatalf("%d bytes of plaintext, and that makes an object of %d", plain, seal.ObjectSize(header, plain))
		}
		if err != nil && !errors.Is(err, remote.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func TestLevelsHaveNames(t *testing.T) {
	var names []string
	for _, l := range []seal.Level{0, seal.Fastest, seal.Default, seal.Better, seal.Max, seal.Off} {
		names = append(names, l.String())
		got, err := seal.ParseLevel(l.String())
		if want := max(l, 1); err != nil || (got != want && l != 0) {
			t.Errorf("%v is parsed as %v, %v", l, got, err)
		}
	}
	if d := cmp.Diff([]string{"default", "fastest", "default", "better", "max", "off"}, names); d != "" {
		t.Error(d)
	}
	if _, err := seal.ParseLevel("level 9"); err == nil || !strings.Contains(err.Error(), "fastest, default, better, max or off") {
		t.Errorf("an unknown level: %v", err)
	}
	for l, want := range map[seal.Level]zstd.EncoderLevel{
		-1: zstd.SpeedFastest, 0: zstd.SpeedDefault, seal.Fastest: zstd.SpeedFastest, seal.Default: zstd.SpeedDefault,
		seal.Better: zstd.SpeedBetterCompression, seal.Max: zstd.SpeedBestCompression, seal.Off: zstd.SpeedFastest, 9: zstd.SpeedBestCompression,
	} {
		if got := l.Encoder(); got != want {
			t.Errorf("%v is zstd's %v, want %v", l, got, want)
		}
	}
}

func BenchmarkPart(b *testing.B) {
	p := newPerson(b, "hybrid")
	var sql bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40_000 {
		fmt.Fprintf(&sql, "(%d,%d,%d,'inside',0,X'%016x',NULL),", i, i/7, i*31, rng.Uint64())
	}
	for _, level := range []seal.Level{seal.Fastest, seal.Default, seal.Better, seal.Max} {
		b.Run(level.String(), func(b *testing.B) {
			b.SetBytes(int64(sql.Len()))
			b.ReportAllocs()
			for b.Loop() {
				part, err := seal.NewPart(p.recipients, level)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := part.Write(sql.Bytes()); err != nil {
					b.Fatal(err)
				}
				object, err := part.Close()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(sql.Len())/float64(len(object)), "ratio")
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	p := newPerson(b, "hybrid")
	plain := bytes.Repeat(random(1, 1<<16), 128)
	object := sealed(b, p.recipients, plain)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		r, err := seal.Open(object, p.identities, int64(len(plain)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
