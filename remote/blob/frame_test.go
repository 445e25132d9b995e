package blob_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

var levels = []seal.Level{seal.Fastest, seal.Default, seal.Better, seal.Max}

func compress(dst, plain []byte, level seal.Level) []byte {
	return blob.NewCompressor(level).Compress(dst, plain)
}

// mixed is random bytes with text in the last eighth.
func mixed(n int) []byte {
	b := content(5, n, false)
	copy(b[n-n/8:], content(6, n/8, true))
	return b
}

func TestFramesComeBackAtEveryLevelAndSize(t *testing.T) {
	var dst []byte
	for _, level := range append(levels, 0, seal.Off) {
		c := blob.NewCompressor(level)
		for _, n := range []int{1, 2, 255, 256, 257, 1000, 1024, 1025, 65_535, 65_536, 65_791, 65_792, 1 << 17, 1<<17 + 1, 1 << 19, 5<<20 + 3} {
			if n > 1<<20 && level > seal.Default {
				continue // one window is enough for the slow ones
			}
			for name, plain := range map[string][]byte{
				"random": content(1, n, false), "text": content(1, n, true), "zeros": make([]byte, n), "mixed": mixed(n),
			} {
				dst = c.Compress(dst, plain)
				if len(dst) > blob.Bound(n) {
					t.Errorf("%v, %d bytes %s: %d bytes, above Bound, %d", level, n, name, len(dst), blob.Bound(n))
				}
				var h zstd.Header
				if err := h.Decode(dst); err != nil || h.HasCheckSum || !h.HasFCS || h.FrameContentSize != uint64(n) {
					t.Errorf("%v, %d bytes %s: header %+v, %v", level, n, name, h, err)
				}
				got, err := blob.Decompress(dst)
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%v, %d bytes %s: %d bytes come back, %v", level, n, name, len(got), err)
				}
			}
		}
	}
}

func TestCompressWorksInTheBufferItIsGiven(t *testing.T) {
	plain := content(1, 1<<20, false)
	buffer := make([]byte, 0, blob.Bound(len(plain)))
	c := blob.NewCompressor(seal.Default)
	if packed := c.Compress(buffer, plain); &packed[0] != &buffer[:1][0] {
		t.Error("the frame lies elsewhere")
	}
	if n := testing.AllocsPerRun(5, func() { c.Compress(buffer, plain) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestBytesThatNeverRepeatAreStillCodedIfThatGains(t *testing.T) {
	encoded := []byte(base64.StdEncoding.EncodeToString(content(1, 3<<18, false)))
	random := content(2, 1<<20, false)
	for _, level := range levels {
		if n := len(compress(nil, encoded, level)); n > len(encoded)*4/5 {
			t.Errorf("%v: %d bytes of %d are left of base64", level, n, len(encoded))
		}
		if n := len(compress(nil, random, level)); n < len(random) {
			t.Errorf("%v: %d bytes of %d random ones are left", level, n, len(random))
		}
	}
}

func TestCompressibleEndsOfRandomFilesAreFound(t *testing.T) {
	plain := mixed(4 << 20)
	for _, level := range levels {
		if n := len(compress(nil, plain, level)); n > len(plain)-len(plain)/12 {
			t.Errorf("%v: %d bytes of %d are left", level, n, len(plain))
		}
	}
}

// rawFrame is a zstd frame of one raw block, with the header spelled out.
func rawFrame(header []byte, block []byte) []byte {
	b := append([]byte("\x28\xb5\x2f\xfd"), header...)
	size := uint32(len(block))<<3 | 1
	b = append(b, byte(size), byte(size>>8), byte(size>>16))
	return append(b, block...)
}

func fcs4(flags byte, size uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{flags}, size)
}

// badFrames are the frames that no reader accepts, by name.
var badFrames = map[string][]byte{
	"empty":                        nil,
	"magic only":                   []byte("\x28\xb5\x2f\xfd"),
	"not zstd":                     []byte("hello, this is no frame"),
	"skippable":                    []byte("V\x2a\x4d\x18\x05\x00\x00\x00hello"),
	"no content size":              rawFrame([]byte{0x00, 0x58}, []byte("hello")),
	"content size 0":               rawFrame([]byte{0x20, 0}, nil),
	"content size too small":       rawFrame([]byte{0x20, 4}, []byte("hello")),
	"content size too large":       rawFrame([]byte{0x20, 6}, []byte("hello")),
	"content size above the limit": rawFrame(fcs4(0xa0, blob.MaxChunk+1), []byte("hello")),
	"content size at the limit":    rawFrame(fcs4(0xa0, blob.MaxChunk), []byte("hello")),
	"content size of 2^62":         rawFrame([]byte{0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40}, []byte("hello")),
	"window of 64 MiB":             rawFrame([]byte{0x40, 16 << 3, 0, 0}, bytes.Repeat([]byte("x"), 256)),
	"dictionary":                   rawFrame([]byte{0x21, 7, 5}, []byte("hello")),
	"reserved bit":                 rawFrame([]byte{0x28, 5}, []byte("hello")),
	"reserved block type":          []byte("\x28\xb5\x2f\xfd\x20\x05\x2f\x00\x00hello"),
	"cut":                          rawFrame([]byte{0x20, 5}, []byte("hello"))[:10],
	"trailing byte":                append(rawFrame([]byte{0x20, 5}, []byte("hello")), 0),
	"two frames":                   bytes.Repeat(rawFrame([]byte{0x20, 5}, []byte("hello")), 2),
	"second frame of 2^35 bytes":   append(rawFrame([]byte{0x20, 5}, []byte("hello")), rawFrame([]byte{0xc0, 0, 0, 0, 0, 0, 8, 0, 0, 0}, []byte("hello"))...),
	"checksum wrong":               append(rawFrame([]byte{0x24, 5}, []byte("hello")), 0, 0, 0, 0),
}

func TestBadFramesAreRefused(t *testing.T) {
	if got, err := blob.Decompress(rawFrame([]byte{0x20, 5}, []byte("hello"))); err != nil || string(got) != "hello" {
		t.Fatalf("a good one: %q, %v", got, err)
	}
	x := bytes.Repeat([]byte("x"), 256)
	if got, err := blob.Decompress(rawFrame([]byte{0x40, 15 << 3, 0, 0}, x)); err != nil || !bytes.Equal(got, x) {
		t.Errorf("a window of 32 MiB: %q, %v", got, err)
	}
	for name, f := range badFrames {
		if got, err := blob.Decompress(f); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	for _, frame := range badFrames {
		f.Add(frame)
	}
	f.Add(compress(nil, content(1, 1000, true), seal.Default))
	f.Add(compress(nil, content(1, 1000, false), seal.Default))
	f.Add(compress(nil, make([]byte, 200_000), seal.Default))
	f.Fuzz(func(t *testing.T, frame []byte) {
		plain, err := blob.Decompress(frame)
		if err != nil {
			if !errors.Is(err, remote.ErrCorrupt) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if len(plain) < 1 || len(plain) > blob.MaxChunk {
			t.Errorf("%d bytes", len(plain))
		}
		again, err := blob.Decompress(compress(nil, plain, seal.Fastest))
		if err != nil || !bytes.Equal(again, plain) {
			t.Errorf("compressed again: %d bytes, %v", len(again), err)
		}
	})
}

func TestTheZstdProgramReadsEveryLevel(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("the program zstd is not installed")
	}
	var packed, want []byte
	for _, level := range append(levels, seal.Off) {
		for _, n := range []int{1, 1000, 300_000} {
			plain := content(uint64(n), n, n > 1000)
			packed = append(packed, compress(nil, plain, level)...)
			want = append(want, plain...)
		}
	}
	cmd := exec.Command("zstd", "-d", "-c")
	cmd.Stdin = bytes.NewReader(packed)
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

func BenchmarkCompress(b *testing.B) {
	for _, size := range []int{256 << 10, 1 << 20} {
		for kind, plain := range map[string][]byte{
			"source": source(size), "random": content(1, size, false),
			"base64": []byte(base64.StdEncoding.EncodeToString(content(1, size/4*3, false))),
		} {
			for _, level := range append(levels, seal.Off) {
				c := blob.NewCompressor(level)
				b.Run(fmt.Sprintf("%s/%dKiB/%v", kind, size>>10, level), func(b *testing.B) {
					dst := make([]byte, 0, blob.Bound(len(plain)))
					b.SetBytes(int64(len(plain)))
					b.ReportAllocs()
					for b.Loop() {
						dst = c.Compress(dst, plain)
					}
					b.ReportMetric(float64(len(plain))/float64(len(dst)), "ratio")
				})
			}
		}
	}
}

func BenchmarkDecompress(b *testing.B) {
	plain := source(1 << 20)
	packed := compress(nil, plain, seal.Default)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := blob.Decompress(packed); err != nil {
			b.Fatal(err)
		}
	}
}
