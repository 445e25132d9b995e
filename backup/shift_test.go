package backup

import (
	"math/rand/v2"
	"testing"
)

// Bytes put in near a file's beginning move all that is behind them, which is
// stored already: cut by content, it is found again after a few chunks.
func TestAnInsertionStoresLittleMoreThanItself(t *testing.T) {
	if testing.Short() {
		t.Skip("much data in one goroutine after the other")
	}
	noise := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	content := string(noise)
	w := newWorld(t, map[string]node{"/home/large": {Content: content, Time: 1000}})
	w.config.Chunking.Min, w.config.Chunking.Avg, w.config.Chunking.Max = 256<<10, 1<<20, 4<<20
	w.backup()
	rng := rand.New(rand.NewPCG(1, 2))
	sum := int64(0)
	for i := range 10 {
		at, n := 1<<20+rng.IntN(1<<20), 1+rng.IntN(100<<10)
		content := content[:at] + content[len(content)-n:] + content[at:]
		w.source.set("/home/large", node{Content: content, Time: int64(2000 + i)})
		sum += w.backup().NewBytes
	}
	// The chunk with the insertion, and one or two until the cuts agree.
	if mean := sum / 10; mean > 5<<20 {
		t.Errorf("an insertion of 50 KiB stored %d bytes on average, want about two chunks", mean)
	}
}
