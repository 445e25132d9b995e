package s3_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// roundTrip is a service without a network, so that its time can be a fake.
type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answer has an empty listing for a body, and confirms an upload.
func answer(r *http.Request, status int) *http.Response {
	body := "<ListBucketResult></ListBucketResult>"
	header := http.Header{"Etag": {`"x"`}, "X-Amz-Checksum-Sha256": r.Header["X-Amz-Checksum-Sha256"]}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r, Header: header,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func onFakeNetwork(f roundTrip) s3.Options {
	return s3.Options{
		Endpoint: "http://s3.test", Region: "us-east-1", Bucket: "backups", AccessKey: "access", SecretKey: "secret", Transport: f,
	}
}

// word is what a person is told, and when.
type word struct {
	after time.Duration
	why   string
}

// told collects words.
type told struct {
	mu    sync.Mutex
	words []word
}

func (l *told) slow() func(error) {
	began := time.Now()
	return func(why error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.words = append(l.words, word{time.Since(began), why.Error()})
	}
}

func (l *told) all() []word {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words
}

// TestADeadServiceIsToldOfAndGivenUp opens a store with a service that takes
// requests and never answers: five seconds until the first word, a minute to
// the end.
func TestADeadServiceIsToldOfAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		o := onFakeNetwork(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		o.Slow = heard.slow()
		began := time.Now()
		_, err := s3.Open(t.Context(), o)
		if took := time.Since(began); took < 60*time.Second || took > 65*time.Second || !errors.Is(err, remote.ErrNoStore) {
			t.Errorf("after %v: %v, want %v after a minute", took, err, remote.ErrNoStore)
		}
		if heard := heard.all(); len(heard) != 2 || heard[0].after != 5*time.Second || heard[0].why != "no answer for 5s" || heard[1].after < 35*time.Second {
			t.Errorf("told %v, want a word after 5 s and one half a minute later", heard)
		}
	})
}

// TestABusyServiceIsToldOfAndGivenUp meets one that is always busy.
func TestABusyServiceIsToldOfAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		requests := 0
		o := onFakeNetwork(func(r *http.Request) (*http.Response, error) {
			requests++
			resp := answer(r, http.StatusServiceUnavailable)
			resp.Body = io.NopCloser(strings.NewReader("<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"))
			return resp, nil
		})
		o.Slow, o.Attempts = heard.slow(), 1000
		began := time.Now()
		_, err := s3.Open(t.Context(), o)
		// The last pause may begin just before the minute ends.
		if took := time.Since(began); took < time.Minute || took > 82*time.Second || !errors.Is(err, remote.ErrNoStore) {
			t.Errorf("after %v and %d requests: %v, want %v after a minute", took, requests, err, remote.ErrNoStore)
		}
		if heard := heard.all(); len(heard) < 2 || len(heard) > 3 || heard[0].after > 6*time.Second || heard[0].why != "HTTP 503 SlowDown" {
			t.Errorf("told %v, want a word after some 5 s, and one every half a minute", heard)
		}
	})
}

// TestAShortFailureIsNotToldOf fails once.
func TestAShortFailureIsNotToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		requests := 0
		o := onFakeNetwork(func(r *http.Request) (*http.Response, error) {
			if requests++; requests == 1 {
				return nil, io.ErrUnexpectedEOF
			}
			return answer(r, http.StatusOK), nil
		})
		o.Slow = heard.slow()
		s := open(t, o)
		if err := s.Put(t.Context(), "ann/a", []byte("x")); err != nil || len(heard.all()) > 0 {
			t.Errorf("%v, told %v", err, heard.all())
		}
	})
}

// TestWhatIsNoS3ServiceIsNoStore meets servers that answer 200 to everything.
func TestWhatIsNoS3ServiceIsNoStore(t *testing.T) {
	for _, body := range []string{"", "OK", "<!DOCTYPE html><html><body>Log in to the hotel's network</body></html>", "<a></a>", "{}"} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, err := s3.Open(t.Context(), onFakeNetwork(func(r *http.Request) (*http.Response, error) {
				resp := answer(r, http.StatusOK)
				resp.Header = http.Header{"Content-Type": {"text/html"}}
				resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				return resp, nil
			}))
			const says = `what answers is no S3 service: it answers a listing with HTTP 200 and the content type "text/html"; check the endpoint`
			if !errors.Is(err, remote.ErrNoStore) || !strings.Contains(err.Error(), says) || time.Since(began) > 3*time.Second {
				t.Errorf("body %q, after %v: %v, want %v at once with %q", body, time.Since(began), err, remote.ErrNoStore, says)
			}
		})
	}

	// One that turns into it later, as when a laptop comes into a hotel.
	f := newFake(t)
	s := f.open(t)
	f.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "<html></html>")
		return true
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("put: %v, want %v", err, remote.ErrNoStore)
	}
	if keys, err := storetest.Keys(t.Context(), s, ""); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("list: %q, %v, want %v", keys, err, remote.ErrNoStore)
	}
}

// TestTheLimitHolds puts 100 kB at 20 kB/s, of which a burst of 20 kB is free.
// The pieces take longer than a transfer may stall.
func TestTheLimitHolds(t *testing.T) {
	for _, c := range []struct {
		what     string
		failures int // PUTs that fail when all was sent
		puts     int // at once
		least    time.Duration
	}{
		{"one upload", 0, 1, 4 * time.Second},
		{"what is sent again counts again", 2, 1, 14 * time.Second},
		{"uploads share it", 0, 3, 14 * time.Second},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := make(chan int64, 10)
				o := onFakeNetwork(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPut {
						return answer(r, http.StatusOK), nil
					}
					n, err := io.Copy(io.Discard, r.Body)
					if err != nil {
						return nil, err
					}
					if sent <- n; len(sent) <= c.failures {
						return nil, io.ErrUnexpectedEOF
					}
					return answer(r, http.StatusOK), nil
				})
				o.Limit, o.Stall = rate.NewLimiter(20_000, 20_000), 500*time.Millisecond
				s := open(t, o)
				began := time.Now()
				done := make(chan error)
				for range c.puts {
					go func() { done <- s.Put(t.Context(), "ann/a", storetest.Bytes(1, 100_000)) }()
				}
				for range c.puts {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took < c.least || took > c.least+2*time.Second {
					t.Errorf("it took %v, want %v", took, c.least)
				}
				if len(sent) != c.failures+c.puts {
					t.Errorf("%d PUTs, want %d: waiting counted as a stall", len(sent), c.failures+c.puts)
				}
			})
		})
	}
}

// TestALimitedUploadEndsWithTheContext cancels one that would take hours.
func TestALimitedUploadEndsWithTheContext(t *testing.T) {
	f := newFake(t)
	s := f.open(t, func(o *s3.Options) { o.Limit = rate.NewLimiter(1, 1<<10) })
	ctx, cancel := context.WithCancel(t.Context())
	f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		_, _ = r.Body.Read(make([]byte, 1)) // it is under way
		cancel()
		return false
	}
	if err := s.Put(ctx, "ann/a", make([]byte, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
