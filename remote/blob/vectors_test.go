package blob_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

var update = flag.Bool("update", false, "make the files in testdata/v1 anew; a released format never needs it")

// vector is one entry of testdata/v1/vectors.json: what a reader of format 1
// must make of NAME.age.
type vector struct {
	Name     string        `json:"name"`
	Identity string        `json:"identity"` // the file IDENTITY.identity
	Size     int64         `json:"size"`     // as the metadata gives it
	Header   int64         `json:"header"`
	TOC      string        `json:"toc"`    // outcome of reading the table of contents, which is then chunks
	Frames   string        `json:"frames"` // outcome of reading the chunks without it
	Chunks   []vectorChunk `json:"chunks"` // as the metadata gives them
}

type vectorChunk struct {
	ID          remote.Hash `json:"id"`
	FrameOffset int64       `json:"frame_offset"`
	FrameLength int64       `json:"frame_length"`
	Offset      int64       `json:"offset"`
	Length      int64       `json:"length"`
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, remote.ErrCorrupt):
		return "corrupt"
	case errors.Is(err, remote.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, seal.ErrNoIdentity):
		return "no identity"
	default:
		return err.Error()
	}
}

func vectorFile(name string) string { return filepath.Join("testdata", "v1", name) }

func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	for _, v := range readVectors(t) {
		object, err := os.ReadFile(vectorFile(v.Name + ".age"))
		if err != nil {
			t.Fatal(err)
		}
		s := mem.New(nil)
		if err := s.Put(t.Context(), key, object); err != nil {
			t.Fatal(err)
		}
		var want []blob.Chunk
		for _, c := range v.Chunks {
			want = append(want, blob.Chunk(c))
		}
		r := blob.NewReader(s, blob.Ref{Key: key, Size: v.Size, Header: v.Header}, load(t, v.Identity).identities)
		frames, err := r.Frames(t.Context(), spans(want))
		for i, c := range want {
			if err == nil {
				_, err = c.Cut(frames[i])
			}
		}
		if got := outcome(err); got != v.Frames {
			t.Errorf("%s: frames: %s (%v), want %s", v.Name, got, err, v.Frames)
		}
		toc, err := r.TOC(t.Context())
		if got := outcome(err); got != v.TOC {
			t.Errorf("%s: TOC: %s (%v), want %s", v.Name, got, err, v.TOC)
		}
		if err == nil && !equal(toc, want) {
			t.Errorf("%s: TOC says %v, want %v", v.Name, toc, want)
		}
	}
}

func equal(a, b []blob.Chunk) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile(vectorFile("vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func decrypt(t testing.TB, name, identity string) []byte {
	t.Helper()
	object, err := os.ReadFile(vectorFile(name + ".age"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(object), load(t, identity).identities...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// TestTheWorkedExampleIsTrue compares the hexadecimal dump in the format's
// description, wherever in docs it is, with a vector.
func TestTheWorkedExampleIsTrue(t *testing.T) {
	const begin, end = "<!-- example: blob -->\n```\n", "```\n"
	v := readVectors(t)[0]
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var examples []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if before, rest, ok := strings.Cut(string(text), begin); ok {
			if sizes := fmt.Sprintf("The object has %d bytes: a header of %d,\nthe nonce of 16, one piece of 208 and its tag of 16.", v.Size, v.Header); !strings.Contains(before, sizes) {
				t.Errorf("%s does not say %q", file, sizes)
			}
			example, _, _ := strings.Cut(rest, end)
			examples = append(examples, example)
		}
	}
	if len(examples) != 1 {
		t.Fatalf("%d documents have the example", len(examples))
	}
	var documented []byte
	for line := range strings.Lines(examples[0]) {
		offset, rest, _ := strings.Cut(line, "  ")
		at, err := hex.DecodeString(offset)
		if err != nil || len(at) != 2 || int(binary.BigEndian.Uint16(at)) != len(documented) {
			t.Errorf("%q begins with another offset than %04x", line, len(documented))
		}
		digits, _, _ := strings.Cut(rest, "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(digits), " ", ""))
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		documented = append(documented, b...)
	}
	if plain := decrypt(t, v.Name, v.Identity); len(plain) != 208 || !bytes.Equal(documented, plain) {
		t.Errorf("documented:\n%s\ndecrypted:\n%s", hex.Dump(documented), hex.Dump(plain))
	}
}

// TestStockProgramsPrintTheChunks is the promise of recovery without this
// program: `age -d | zstd -d` prints a blob's chunks back to back.
func TestStockProgramsPrintTheChunks(t *testing.T) {
	for _, program := range []string{"age", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the program %s is not installed", program)
		}
	}
	for _, kind := range []string{"x25519", "hybrid"} {
		t.Run(kind, func(t *testing.T) {
			var frames []frame
			var want []byte
			for i := range uint64(6) {
				f := frame{content(i, 70_000, true), content(i+100, 1, true), content(i+200, 50_000, false)}
				frames, want = append(frames, f), append(want, f.plain()...)
			}
			object := filepath.Join(t.TempDir(), "blob")
			if err := os.WriteFile(object, build(t, load(t, kind), seal.Better, frames...).Object, 0o600); err != nil {
				t.Fatal(err)
			}
			packed, err := exec.Command("age", "-d", "-i", vectorFile(kind+".identity"), object).Output()
			if exit := (*exec.ExitError)(nil); kind == "hybrid" && errors.As(err, &exit) && bytes.Contains(exit.Stderr, []byte("unknown identity type")) {
				t.Skip("the age program is older than 1.3 and knows no post-quantum keys")
			}
			if err != nil {
				t.Fatal(err)
			}
			zstd := exec.Command("zstd", "-d", "-c")
			zstd.Stdin = bytes.NewReader(packed)
			if got, err := zstd.Output(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	for _, v := range readVectors(f) {
		plain, err := os.ReadFile(vectorFile(v.Name + ".age"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain, v.Size, v.Header, int64(23), int64(22))
	}
	ids := append(load(f, "x25519").identities, load(f, "hybrid").identities...)
	f.Fuzz(func(t *testing.T, object []byte, size, header, offset, length int64) {
		s := mem.New(nil)
		if err := s.Put(context.Background(), key, object); err != nil {
			t.Fatal(err)
		}
		r := blob.NewReader(s, blob.Ref{Key: key, Size: size, Header: header}, ids)
		_, err := r.Frames(context.Background(), []blob.Span{{Offset: offset, Length: length}})
		for _, err := range []error{err, func() error { _, err := r.TOC(context.Background()); return err }()} {
			switch outcome(err) {
			case "ok", "corrupt", "unsupported", "no identity":
			default:
				t.Errorf("an error of no kind: %v", err)
			}
		}
	})
}
