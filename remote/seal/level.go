package seal

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Level says how much time compression may take. The zero Level is Default.
// Levels never matter to a reader; numbers are kept in the index and in dumps,
// so they never change their meaning.
type Level int

const (
	Fastest Level = 1 // about zstd -1
	Default Level = 2 // about zstd -3
	Better  Level = 3 // about zstd -7
	Max     Level = 4 // about zstd -11
)

// ParseLevel is the inverse of String.
func ParseLevel(name string) (Level, error) {
	for l := Fastest; l <= Max; l++ {
		if l.String() == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is not a compression level: use fastest, default, better or max", name)
}

// String returns the level's name.
func (l Level) String() string {
	switch l {
	case Fastest:
		return "fastest"
	case 0, Default:
		return "default"
	case Better:
		return "better"
	case Max:
		return "max"
	default:
		return fmt.Sprintf("level %d", int(l))
	}
}

// Encoder returns the compressor's own name for the level; a Level that is
// none of the above counts as the nearest one.
func (l Level) Encoder() zstd.EncoderLevel {
	switch {
	case l == 0:
		return zstd.SpeedDefault
	case l <= Fastest:
		return zstd.SpeedFastest
	case l == Default:
		return zstd.SpeedDefault
	case l == Better:
		return zstd.SpeedBetterCompression
	default:
		return zstd.SpeedBestCompression
	}
}
