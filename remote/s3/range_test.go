package s3

import (
	"fmt"
	"testing"
)

// FuzzParseContentRange holds that what is accepted is consistent and is what
// its numbers print as, but for leading zeros.
func FuzzParseContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 0-99/1234", "bytes 0-0/1", "bytes 5-4/9", "bytes 0-9/*", "bytes -1-2/3", "bytes 0-9223372036854775807/9223372036854775807", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, ok := parseContentRange(s)
		if !ok {
			return
		}
		if first < 0 || first > last || last >= size {
			t.Fatalf("%q: %d-%d/%d", s, first, last, size)
		}
		again := fmt.Sprintf("bytes %d-%d/%d", first, last, size)
		if f2, l2, s2, ok := parseContentRange(again); !ok || f2 != first || l2 != last || s2 != size {
			t.Fatalf("%q printed as %q", s, again)
		}
	})
}
