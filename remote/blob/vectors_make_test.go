package blob_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// This file makes the vectors. It spells the format out a second
// time, so that writer and reader cannot agree on the same mistake.

const (
	goodHeader = "V*M\x18\x0f\x00\x00\x00vaultik blob 1\n"
	goodMagic  = "vaultik\x01"
)

func u32(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

// rawTOC is a table of contents around entries, its last length off by wrong.
func rawTOC(frames int, entries []byte, wrong int, magic string) []byte {
	n := 4 + len(entries) + 4 + 8
	return slices.Concat([]byte("V*M\x18"), u32(n), u32(frames), entries, u32(8+n+wrong), []byte(magic))
}

func entry(c vectorChunk, length int) []byte { return append(bytes.Clone(c.ID[:]), u32(length)...) }

func makeVectors(t *testing.T) {
	t.Helper()
	one := rawFrame([]byte{0x20, 13}, []byte("hello, world\n"))
	two := rawFrame([]byte{0x20, 6}, []byte("again\n"))
	at, next := int64(len(goodHeader)), int64(len(goodHeader)+len(one))
	h, w, a := remote.Sum([]byte("hello, ")), remote.Sum([]byte("world\n")), remote.Sum([]byte("again\n"))
	chunks := []vectorChunk{
		{h, at, int64(len(one)), 0, 7}, {w, at, int64(len(one)), 7, 6}, {a, next, int64(len(two)), 0, 6},
	}
	entries1 := slices.Concat(u32(len(one)), u32(2), entry(chunks[0], 7), entry(chunks[1], 6))
	entries2 := slices.Concat(u32(len(two)), u32(1), entry(chunks[2], 6))
	entries := slices.Concat(entries1, entries2)
	toc := rawTOC(2, entries, 0, goodMagic)
	frames := slices.Concat(one, two)
	body := func(toc []byte) []byte { return slices.Concat([]byte(goodHeader), frames, toc) }
	good := body(toc)
	// with gives the second frame other bytes.
	with := func(two []byte) ([]byte, []vectorChunk) {
		c := chunks[2]
		c.FrameLength = int64(len(two))
		return slices.Concat([]byte(goodHeader), one, two, rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(1), entry(c, 6)), 0, goodMagic)),
			[]vectorChunk{chunks[0], chunks[1], c}
	}

	vectors := []vector{}
	write := func(v vector, object []byte) {
		if v.Chunks == nil {
			v.Chunks = chunks
		}
		if err := os.WriteFile(vectorFile(v.Name+".age"), object, 0o644); err != nil {
			t.Fatal(err)
		}
		vectors = append(vectors, v)
	}
	encrypt := func(kind string, plain []byte) ([]byte, int64) {
		var object bytes.Buffer
		w, header, err := seal.Encrypt(&object, load(t, kind).recipients)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return object.Bytes(), header
	}
	plain := func(name, toc, frames string, content []byte, chunks []vectorChunk) {
		object, header := encrypt("x25519", content)
		write(vector{Name: name, Identity: "x25519", Size: int64(len(object)), Header: header, TOC: toc, Frames: frames, Chunks: chunks}, object)
	}

	plain("example", "ok", "ok", good, nil)
	object, header := encrypt("hybrid", good)
	size := int64(len(object))
	write(vector{Name: "hybrid", Identity: "hybrid", Size: size, Header: header, TOC: "ok", Frames: "ok"}, object)
	write(vector{Name: "wrong-identity", Identity: "x25519", Size: size, Header: header, TOC: "no identity", Frames: "no identity"}, object)

	object, header = encrypt("x25519", good)
	size = int64(len(object))
	flipped := bytes.Clone(object)
	flipped[header+16+at+12] ^= 4
	bad := func(name string, size, header int64, object []byte) {
		write(vector{Name: name, Identity: "x25519", Size: size, Header: header, TOC: "corrupt", Frames: "corrupt"}, object)
	}
	bad("truncated", size, header, object[:size-1])
	bad("truncated-size-too", size-1, header, object[:size-1])
	bad("extended", size+1, header, append(bytes.Clone(object), 0))
	bad("flipped-byte", size, header, flipped)
	bad("header-length-wrong", size, header-1, object)
	bad("size-wrong", size-1, header, object)

	// A blob of several age pieces, made by the real writer.
	built := build(t, load(t, "x25519"), seal.Default, frame{content(1, 40_000, false)}, frame{content(2, 30_000, false), []byte("x")})
	var many []vectorChunk
	for _, c := range built.Chunks {
		many = append(many, vectorChunk(c))
	}
	write(vector{Name: "two-pieces", Identity: "x25519", Size: int64(len(built.Object)), Header: built.Header, TOC: "ok", Frames: "ok", Chunks: many}, built.Object)
	cut := built.Header + 16 + seal.SealedSize
	bad("two-pieces-cut-between", cut, built.Header, built.Object[:cut])

	plain("header-magic", "corrupt", "ok", slices.Concat([]byte("V*M\x18\x0f\x00\x00\x00something els1\n"), frames, toc), nil)
	plain("header-version", "unsupported", "ok", slices.Concat([]byte("V*M\x18\x0f\x00\x00\x00vaultik blob 2\n"), frames, toc), nil)
	plain("toc-missing", "corrupt", "ok", body(nil), nil)
	plain("toc-magic", "corrupt", "ok", body(rawTOC(2, entries, 0, "Vaultik\x01")), nil)
	plain("toc-version", "unsupported", "ok", body(rawTOC(2, entries, 0, "vaultik\x02")), nil)
	plain("toc-trailing-bytes", "corrupt", "ok", append(bytes.Clone(good), 0), nil)
	plain("toc-length-short", "corrupt", "ok", body(rawTOC(2, entries, -1, goodMagic)), nil)
	plain("toc-length-long", "corrupt", "ok", body(rawTOC(2, entries, 1, goodMagic)), nil)
	plain("toc-length-outside", "corrupt", "ok", body(rawTOC(2, entries, 1<<20, goodMagic)), nil)
	plain("toc-length-tiny", "corrupt", "ok", body(rawTOC(2, entries, 16-len(toc), goodMagic)), nil)
	plain("toc-frame-missing", "corrupt", "ok", body(rawTOC(1, entries1, 0, goodMagic)), nil)
	plain("toc-frame-extra", "corrupt", "ok", body(rawTOC(3, slices.Concat(entries, entries2), 0, goodMagic)), nil)
	plain("toc-frame-count-low", "corrupt", "ok", body(rawTOC(1, entries, 0, goodMagic)), nil)
	plain("toc-frame-count-high", "corrupt", "ok", body(rawTOC(3, entries, 0, goodMagic)), nil)
	plain("toc-frame-count-huge", "corrupt", "ok", body(rawTOC(1<<32-1, entries, 0, goodMagic)), nil)
	plain("toc-frame-empty", "corrupt", "ok", body(rawTOC(3, slices.Concat(entries, u32(0), u32(1), entry(chunks[2], 6)), 0, goodMagic)), nil)
	plain("toc-frame-outside", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)+1), u32(1), entry(chunks[2], 6)), 0, goodMagic)), nil)
	plain("toc-frame-huge", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(1<<32-1), u32(1), entry(chunks[2], 6)), 0, goodMagic)), nil)
	plain("toc-no-chunks", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(0)), 0, goodMagic)), nil)
	plain("toc-chunk-count-huge", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(1<<32-1), entry(chunks[2], 6)), 0, goodMagic)), nil)
	plain("toc-chunk-empty", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(1), entry(chunks[2], 0)), 0, goodMagic)), nil)
	plain("toc-chunk-huge", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(1), entry(chunks[2], 16<<20+1)), 0, goodMagic)), nil)
	plain("toc-chunks-huge", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries1, u32(len(two)), u32(2), entry(chunks[2], 6), entry(chunks[2], 16<<20)), 0, goodMagic)), nil)
	plain("toc-bytes-left-over", "corrupt", "ok", body(rawTOC(2, slices.Concat(entries, u32(0)), 0, goodMagic)), nil)
	plain("toc-two-lengths", "corrupt", "ok", body(slices.Concat(toc[:4], u32(len(toc)-9), toc[8:])), nil)
	plain("toc-not-skippable", "corrupt", "ok", body(slices.Concat([]byte("W"), toc[1:])), nil)

	altered, c := with(rawFrame([]byte{0x20, 6}, []byte("AGAIN\n")))
	plain("chunk-altered", "ok", "corrupt", altered, c)
	for _, name := range slices.Sorted(maps.Keys(badFrames)) {
		if f := badFrames[name]; len(f) > 0 && len(f) < 1000 {
			content, c := with(f)
			plain("frame-"+strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "^", ""), "ok", "corrupt", content, c)
		}
	}
	text, err := json.MarshalIndent(vectors, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorFile("vectors.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
