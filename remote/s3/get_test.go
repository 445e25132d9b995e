package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// TestADownloadGoesOnWhereItBroke breaks the first answer after a number of
// bytes, in several ways.
func TestADownloadGoesOnWhereItBroke(t *testing.T) {
	const size = 100_000
	body := storetest.Bytes(1, size)
	for _, span := range []struct{ off, n int64 }{{0, -1}, {0, size}, {30_000, 50_000}, {30_000, -1}} {
		want := body[span.off:]
		if span.n >= 0 {
			want = want[:span.n]
		}
		for _, sent := range []int{0, 1, 20_000, len(want) - 1} {
			for _, stall := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d+%d broken after %d, stalled %t", span.off, span.n, sent, stall), func(t *testing.T) {
					t.Parallel()
					last := size - 1
					if span.n >= 0 {
						last = int(span.off+span.n) - 1
					}
					goesOn := fmt.Sprintf("GET ann/a bytes=%d-%d", int(span.off)+sent, last)
					read := func() (requests []string) {
						f := newFake(t)
						f.put("ann/a", body)
						f.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
							if n > 1 {
								return false
							}
							promise(w, r, len(want), span.off, size)
							_, _ = w.Write(want[:sent])
							_ = http.NewResponseController(w).Flush()
							if stall {
								<-f.end
							}
							hangUp()
							return true
						}
						var patience []func(*s3.Options)
						if stall {
							patience = append(patience, impatient)
						}
						got, err := storetest.Read(t.Context(), f.open(t, patience...), "ann/a", span.off, span.n)
						if err != nil || !bytes.Equal(got, want) {
							t.Errorf("got %d bytes, %v", len(got), err)
						}
						return f.seen()
					}
					requests := read()
					for tries := 4; tries > 0 && stall && len(requests) > 1 && requests[1] != goesOn && requests[1] == requests[0]; tries-- {
						requests = read() // this machine was so busy that not even the beginning came in time
					}
					if len(requests) < 2 || requests[1] != goesOn {
						t.Errorf("requests %q, want the second to be %q", requests, goesOn)
					}
				})
			}
		}
	}
}

// promise writes the header of an answer with n bytes.
func promise(w http.ResponseWriter, r *http.Request, n int, off, size int64) {
	w.Header().Set("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	if r.Header.Get("Range") != "" {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+int64(n)-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
}

func TestADownloadThatNeverGetsOnFails(t *testing.T) {
	f := newFake(t)
	f.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		promise(w, r, 100, 0, 100)
		_ = http.NewResponseController(w).Flush()
		hangUp()
		return true
	}
	_, err := storetest.Read(t.Context(), f.open(t), "ann/a", 0, -1)
	if !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("%v, want %v", err, remote.ErrNoStore)
	}
	if n := len(f.seen()); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
}

// TestEveryPieceOfProgressGivesNewAttempts hands out a byte per request.
func TestEveryPieceOfProgressGivesNewAttempts(t *testing.T) {
	body := storetest.Bytes(1, 20)
	f := newFake(t)
	f.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		var off int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-19", &off); err != nil {
			t.Errorf("asked for the range %q", r.Header.Get("Range"))
		}
		promise(w, r, 20-off, int64(off), 20)
		_, _ = w.Write(body[off : off+1])
		_ = http.NewResponseController(w).Flush()
		if off < 19 {
			hangUp()
		}
		return true
	}
	s := f.open(t, func(o *s3.Options) { o.Attempts = 2 })
	got, err := storetest.Read(t.Context(), s, "ann/a", 0, 20)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %x, %v; want %x", got, err, body)
	}
	if n := len(f.seen()); n < 20 {
		t.Errorf("%d requests for 20 bytes, one at a time", n)
	}
}

func TestAnswersToOtherRangesAreRefused(t *testing.T) {
	for _, c := range []struct {
		what         string
		contentRange string // "" with 200
	}{
		{"the whole object", ""},
		{"another first byte", "bytes 9-19/100"},
		{"another last byte", "bytes 10-20/100"},
		{"fewer bytes than there are", "bytes 10-18/100"},
		{"a size below the last byte", "bytes 10-19/15"},
		{"no size", "bytes 10-19/*"},
		{"no numbers", "bytes a-b/c"},
		{"other units", "lines 10-19/100"},
		{"signs", "bytes +10-19/100"},
	} {
		f := newFake(t)
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
			if c.contentRange != "" {
				w.Header().Set("Content-Range", c.contentRange)
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(make([]byte, 10))
			return true
		}
		s := f.open(t)
		if _, err := storetest.Read(t.Context(), s, "ann/a", 10, 10); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", c.what, err, remote.ErrCorrupt)
		}
		if n := len(f.seen()); n != 5 {
			t.Errorf("%s: %d requests, want 5", c.what, n)
		}
	}
}

func TestAnObjectThatChangesItsSizeIsCorrupt(t *testing.T) {
	f := newFake(t)
	f.put("ann/a", make([]byte, 90))
	f.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			promise(w, r, 100, 0, 100)
			_, _ = w.Write(make([]byte, 50))
			_ = http.NewResponseController(w).Flush()
			hangUp()
		}
		return false
	}
	_, err := storetest.Read(t.Context(), f.open(t), "ann/a", 0, -1)
	if !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("%v, want %v", err, remote.ErrCorrupt)
	}
}

// TestASlowReaderIsNoStall takes its time between two reads.
func TestASlowReaderIsNoStall(t *testing.T) {
	f := newFake(t)
	body := storetest.Bytes(1, 8<<20)
	f.put("ann/a", body)
	s := f.open(t, func(o *s3.Options) { o.Attempts, o.Stall = 2, time.Second })
	r, err := s.Get(t.Context(), "ann/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 1000)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	// Another call stalls meanwhile, which takes longer than the Stall that
	// must not hit the reader.
	f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			<-f.end
		}
		return r.Method == http.MethodHead
	}
	if _, err := s.Stat(t.Context(), "ann/a"); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("stat: %v, want %v", err, remote.ErrNoStore)
	}
	next := make([]byte, 1)
	if _, err := r.Read(next); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"GET ann/a", "HEAD ann/a", "HEAD ann/a"}, f.seen()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(slices.Concat(head, next, rest), body) {
		t.Errorf("read %d more bytes, %v", len(rest), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(next); err == nil {
		t.Error("a closed reader gives bytes")
	}
}
