package blob_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// source is n bytes that compress about as program text does.
func source(n int) []byte {
	rng := rand.New(rand.NewPCG(4, 4))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "\tif err := frame%d.write(%q, %d); err != nil {\n\t\treturn err // %x\n\t}\n",
			rng.IntN(90), string(rune('a'+rng.IntN(26))), rng.IntN(3000), rng.Uint32()>>(rng.IntN(4)*8))
	}
	return b.Bytes()[:n]
}

// BenchmarkWriter is what comes after compression: encryption and the hash.
func BenchmarkWriter(b *testing.B) {
	p := load(b, "hybrid")
	plain := content(1, 1<<20, false)
	packed := compress(nil, plain, seal.Fastest)
	chunks := []blob.FrameChunk{{ID: remote.Sum(plain), Length: int64(len(plain))}}
	b.SetBytes(32 << 20)
	b.ReportAllocs()
	for b.Loop() {
		w, err := blob.NewWriter(p.recipients, 0)
		if err != nil {
			b.Fatal(err)
		}
		for range 32 {
			if err := w.Add(packed, len(plain), chunks); err != nil {
				b.Fatal(err)
			}
		}
		done, err := w.Close()
		if err != nil {
			b.Fatal(err)
		}
		done.Release()
	}
}

// BenchmarkReader reads from memory: what is left when the network is free.
func BenchmarkReader(b *testing.B) {
	p := load(b, "hybrid")
	var frames []frame
	text := source(32 << 20)
	for i := range 32 {
		frames = append(frames, frame{text[i<<20 : (i+1)<<20]})
	}
	built := build(b, p, seal.Default, frames...)
	s, ref := put(b, built)
	b.Run("one frame, cold", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			if _, err := blob.NewReader(s, ref, p.identities).Frames(b.Context(), spans(built.Chunks[9:10])); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, chunks := range map[string][]blob.Chunk{"one frame": built.Chunks[9:10], "eight frames": built.Chunks[9:17]} {
		b.Run(name, func(b *testing.B) {
			r := blob.NewReader(s, ref, p.identities)
			b.SetBytes(int64(len(chunks)) << 20)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Frames(b.Context(), spans(chunks)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
