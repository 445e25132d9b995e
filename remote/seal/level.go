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
	Fastest Level = 1 // zstd -1
	Default Level = 2 // zstd -3
	Better  Level = 3 // zstd -7
	Max     Level = 4 // about zstd -15
	Off     Level = 5 // blobs are stored as they are; metadata is compressed all the same
)

// ParseLevel is the inverse of String.
func ParseLevel(name string) (Level, error) {
	for l := Fastest; l <= Off; l++ {
		if l.String() == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is not a compression level: use fastest, default, better, max or off", name)
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
	case Off:
		return "off"
	default:
		return fmt.Sprintf("level %d", int(l))
	}
}

// Zstd returns libzstd's number of the level. Level 3 is the one that is fast
// for its ratio: 1 is half as fast again for 10 % more bytes, 5 takes more than
// twice as long for 7 % less.
func (l Level) Zstd() int {
	switch l {
	case Fastest, Off:
		return 1
	case Better:
		return 7
	case Max:
		return 15
	}
	return 3
}

// Encoder returns the level's name in the compressor of streams; a Level that
// is none of the above counts as the nearest one.
func (l Level) Encoder() zstd.EncoderLevel {
	switch {
	case l == 0:
		return zstd.SpeedDefault
	case l <= Fastest, l == Off:
		return zstd.SpeedFastest
	case l == Default:
		return zstd.SpeedDefault
	case l == Better:
		return zstd.SpeedBetterCompression
	default:
		return zstd.SpeedBestCompression
	}
}
