package backup

import "math/rand/v2"

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
