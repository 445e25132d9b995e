package blob

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func newWriter(t *testing.T) *Writer {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter([]age.Recipient{id.Recipient()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func chunk(n int64) FrameChunk { return FrameChunk{remote.Sum(nil), n} }

func TestAFrameThatBreaksARuleIsRefusedAndTheBlobGoesOn(t *testing.T) {
	hello := NewCompressor(seal.Default).Compress(nil, []byte("hello"))
	w := newWriter(t)
	if err := w.Add(hello, 5, []FrameChunk{chunk(2), chunk(3)}); err != nil {
		t.Fatal(err)
	}
	size := w.Size()
	for name, c := range map[string]struct {
		frame    []byte
		plainLen int
		chunks   []FrameChunk
	}{
		"no frame":                {nil, 0, nil},
		"not a frame":             {[]byte("hello, world"), 5, []FrameChunk{chunk(5)}},
		"skippable frame":         {[]byte(headerFrame), 5, []FrameChunk{chunk(5)}},
		"another length":          {hello, 6, []FrameChunk{chunk(6)}},
		"no chunks":               {hello, 5, nil},
		"chunks too short":        {hello, 5, []FrameChunk{chunk(2), chunk(2)}},
		"chunks too long":         {hello, 5, []FrameChunk{chunk(2), chunk(4)}},
		"empty chunk":             {hello, 5, []FrameChunk{chunk(5), chunk(0)}},
		"negative chunk":          {hello, 5, []FrameChunk{chunk(6), chunk(-1)}},
		"chunks that overflow":    {hello, 5, []FrameChunk{chunk(math.MaxInt64), chunk(math.MaxInt64), chunk(7)}},
		"frame above the limit":   {NewCompressor(seal.Fastest).Compress(nil, make([]byte, MaxChunk+1)), MaxChunk + 1, []FrameChunk{chunk(MaxChunk), chunk(1)}},
		"frame of zero bytes":     {[]byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"), 0, nil},
		"padded beyond any frame": {append(bytes.Clone(hello), make([]byte, maxFrame)...), 5, []FrameChunk{chunk(5)}},
	} {
		if err := w.Add(c.frame, c.plainLen, c.chunks); err == nil {
			t.Errorf("%s: it is added", name)
		}
	}
	if w.Size() != size {
		t.Errorf("refused frames left %d bytes", w.Size()-size)
	}
	if err := w.Add(hello, 5, []FrameChunk{chunk(5)}); err != nil {
		t.Fatal(err)
	}
	b, err := w.Close()
	if err != nil || len(b.Chunks) != 3 {
		t.Fatalf("%+v, %v", b, err)
	}
	if err := w.Add(hello, 5, []FrameChunk{chunk(5)}); err == nil {
		t.Error("a closed blob takes frames")
	}
	if _, err := w.Close(); err == nil {
		t.Error("a closed blob is closed again")
	}
}

func TestAnEmptyBlobIsRefused(t *testing.T) {
	if _, err := newWriter(t).Close(); err == nil {
		t.Error("it is closed")
	}
}

func TestABlobNeverPassesTheLimit(t *testing.T) {
	hello := NewCompressor(seal.Default).Compress(nil, []byte("hello"))
	w := newWriter(t)
	if err := w.Add(hello, 5, []FrameChunk{chunk(5)}); err != nil {
		t.Fatal(err)
	}
	w.plain += (MaxSize - w.Size() - 100_000) / seal.SealedSize * seal.PieceSize // as if that much had been added
	added := 0
	for ; added < 100_000; added++ {
		if err := w.Add(hello, 5, []FrameChunk{chunk(5)}); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	perFrame := int64(len(hello) + 8 + entrySize)
	if size := w.Size(); size > MaxSize || size+perFrame+seal.SealedSize-seal.PieceSize < MaxSize {
		t.Errorf("full after %d frames with %d bytes, the limit is %d", added, size, MaxSize)
	}
}

func TestReleasedMemoryIsUsedAgainAndNothingLeaksFromOneBlobIntoTheNext(t *testing.T) {
	packed := NewCompressor(seal.Default).Compress(nil, bytes.Repeat([]byte("hello"), 1000))
	var hash remote.Hash
	var memory *byte
	for round := range 5 {
		w := newWriter(t)
		if err := w.Add(packed, 5000, []FrameChunk{chunk(5000)}); err != nil {
			t.Fatal(err)
		}
		b, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if b.Hash != remote.Sum(b.Object) || b.Hash == hash {
			t.Fatalf("a blob of %d bytes named %s", len(b.Object), b.Hash)
		}
		if first := &b.Object[0]; round > 0 && first != memory {
			t.Error("new memory although some was released")
		} else {
			memory = first
		}
		hash = b.Hash
		b.Release()
		if b.Object != nil {
			t.Error("a released blob still has its object")
		}
		b.Release()
	}
}

// parse reads plain as the decrypted bytes of a blob, as TOC does.
func parse(plain []byte) ([]Chunk, error) {
	if len(plain) < len(headerFrame)+trailerSize {
		return nil, remote.ErrCorrupt
	}
	if err := checkHeader(plain[:len(headerFrame)]); err != nil {
		return nil, err
	}
	n, err := tocLength(plain[len(plain)-trailerSize:], int64(len(plain)))
	if err != nil {
		return nil, err
	}
	end := int64(len(plain)) - n
	return decodeTOC(plain[end:], end)
}

func FuzzTOC(f *testing.F) {
	var one table
	one.add(9, []FrameChunk{chunk(5)})
	f.Add([]byte(headerFrame + "123456789" + string(one.encode())))
	one.add(3, []FrameChunk{chunk(1), chunk(MaxChunk - 1)})
	f.Add([]byte(headerFrame + "123456789abc" + string(one.encode())))
	f.Add([]byte(headerFrame + string((&table{}).encode())))
	f.Fuzz(func(t *testing.T, plain []byte) {
		chunks, err := parse(plain)
		if err != nil {
			if !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, remote.ErrUnsupported) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		// What is accepted has one encoding only: the one that was read.
		var again table
		at := int64(len(headerFrame))
		for len(chunks) > 0 {
			first := chunks[0]
			var frame []FrameChunk
			var offset int64
			for len(chunks) > 0 && chunks[0].FrameOffset == first.FrameOffset {
				if chunks[0].Offset != offset || chunks[0].FrameLength != first.FrameLength {
					t.Fatalf("chunks do not tile their frame: %+v", chunks[0])
				}
				frame, offset, chunks = append(frame, FrameChunk{chunks[0].ID, chunks[0].Length}), offset+chunks[0].Length, chunks[1:]
			}
			if first.FrameOffset != at || offset > MaxChunk {
				t.Fatalf("frames do not follow each other: %+v after %d", first, at)
			}
			at += first.FrameLength
			again.add(int(first.FrameLength), frame)
		}
		if !bytes.Equal(again.encode(), plain[at:]) {
			t.Errorf("read % x, written again % x", plain[at:], again.encode())
		}
	})
}
