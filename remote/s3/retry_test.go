package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// verbs are one call of each method.
var verbs = []struct {
	name string
	call func(ctx context.Context, s *s3.Store) error
}{
	{"put", func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "ann/new", []byte("x")) }},
	{"get", func(ctx context.Context, s *s3.Store) error {
		_, err := storetest.Read(ctx, s, "ann/a", 0, -1)
		return err
	}},
	{"stat", func(ctx context.Context, s *s3.Store) error { _, err := s.Stat(ctx, "ann/a"); return err }},
	{"list", func(ctx context.Context, s *s3.Store) error { _, err := storetest.Keys(ctx, s, "ann/"); return err }},
	{"delete", func(ctx context.Context, s *s3.Store) error { return s.Delete(ctx, "ann/a") }},
}

func TestPassingFailuresAreTriedAgain(t *testing.T) {
	for _, failure := range []struct {
		status int // 0: the connection breaks
		code   string
	}{
		{0, ""}, {408, "RequestTimeout"}, {409, "ConditionalRequestConflict"}, {429, "TooManyRequests"}, {500, "InternalError"},
		{502, "BadGateway"}, {503, "SlowDown"}, {504, "GatewayTimeout"}, {400, "RequestTimeout"},
	} {
		for _, verb := range verbs {
			if verb.name == "stat" && failure.status == 400 {
				continue // the answer to HEAD has no body, and so no code
			}
			t.Run(fmt.Sprintf("%s at %d %s", verb.name, failure.status, failure.code), func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				f.put("ann/a", []byte("x"))
				f.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
					switch {
					case n > 1:
						return false
					case failure.status == 0:
						hangUp()
					}
					refuse(w, failure.status, failure.code)
					return true
				}
				if err := verb.call(t.Context(), f.open(t)); err != nil {
					t.Error(err)
				}
				if n := len(f.seen()); n != 2 {
					t.Errorf("%d requests, want 2", n)
				}
			})
		}
	}
}

func TestLastingFailuresAreNot(t *testing.T) {
	for _, failure := range []struct {
		status int
		code   string
		want   error
	}{
		{403, "AccessDenied", remote.ErrDenied},
		{403, "InvalidAccessKeyId", remote.ErrDenied},
		{403, "RequestTimeTooSkewed", remote.ErrDenied},
		{404, "NoSuchBucket", remote.ErrNoStore},
		{301, "PermanentRedirect", remote.ErrNoStore},
		{501, "NotImplemented", nil},
		{507, "InsufficientStorage", nil},
	} {
		for _, verb := range verbs {
			if verb.name == "stat" && (failure.code == "NoSuchBucket" || failure.status == 301) {
				continue // the answer to HEAD has no body, and so no code
			}
			f := newFake(t)
			f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				refuse(w, failure.status, failure.code)
				return true
			}
			err := verb.call(t.Context(), f.open(t))
			if err == nil || failure.want != nil && !errors.Is(err, failure.want) {
				t.Errorf("%s at %s: %v, want %v", verb.name, failure.code, err, failure.want)
			}
			if n := len(f.seen()); n != 1 {
				t.Errorf("%s at %s: %d requests, want 1", verb.name, failure.code, n)
			}
		}
	}
}

// An object in an archive, or put with a customer's own key, is there and does
// not come out; the store is well.
func TestAnObjectThatIsWithheldIsNoStoreThatFails(t *testing.T) {
	for code, status := range map[string]int{"InvalidObjectState": 403, "InvalidRequest": 400} {
		f := newFake(t)
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, status, code)
			return true
		}
		_, err := f.open(t).Get(t.Context(), "ann/a", 0, -1)
		if !errors.Is(err, remote.ErrUnreadable) || errors.Is(err, remote.ErrNoStore) {
			t.Errorf("%s: %v, want ErrUnreadable", code, err)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	for _, verb := range verbs {
		t.Run(verb.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				refuse(w, 503, "SlowDown")
				return true
			}
			if err := verb.call(t.Context(), f.open(t)); err == nil {
				t.Error("the call succeeded")
			}
			want := 5
			if verb.name == "put" {
				want += 3 // it looks whether the object is there after all
			}
			if n := len(f.seen()); n != want {
				t.Errorf("%d requests, want %d", n, want)
			}
		})
	}
}

func TestAPauseEndsWithTheContext(t *testing.T) {
	for _, verb := range verbs {
		f := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, 503, "SlowDown")
			time.AfterFunc(20*time.Millisecond, cancel) // most likely within the pause
			return true
		}
		s := f.open(t, func(o *s3.Options) { o.Backoff = time.Hour })
		if err := verb.call(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", verb.name, err, context.Canceled)
		}
		cancel()
	}
}

func TestAPutIsOneSignedConditionalRequest(t *testing.T) {
	f := newFake(t)
	s := f.open(t, func(o *s3.Options) { o.Prefix = "pre/fix" })
	body := storetest.Bytes(1, 3<<20)
	sum := remote.Sum(body)
	var header http.Header
	var length int64
	f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		header, length = r.Header.Clone(), r.ContentLength
		return false
	}
	if err := s.Put(t.Context(), "ann/a", body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"PUT pre/fix/ann/a"}, f.seen()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if header.Get("If-None-Match") != "*" || header.Get("X-Amz-Content-Sha256") != sum.String() || length != 3<<20 {
		t.Errorf("the request has length %d and header %v", length, header)
	}
	if signed := header.Get("Authorization"); !strings.Contains(signed, "x-amz-checksum-sha256") {
		t.Errorf("the sum is not signed: %q", signed)
	}
}

// TestALostAnswer lets Puts succeed whose answers never arrive.
func TestALostAnswer(t *testing.T) {
	body := storetest.Bytes(1, 1000)
	// lose stores the first PUT and hangs up.
	lose := func(f *fake) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				f.put("ann/a", body)
				hangUp()
			}
			return false
		}
	}
	for _, c := range []struct {
		what     string
		set      func(f *fake)
		want     []error // that the error wraps; none: success
		requests string
	}{
		{"the object is ours", func(f *fake) { f.answer = lose(f) }, nil, "PUT PUT HEAD"},
		{"and the service has no sums", func(f *fake) { f.answer, f.noSums = lose(f), true }, nil, "PUT PUT HEAD GET"},
		{"the object is of another creator", func(f *fake) {
			f.answer = lose(f)
			lost := f.answer
			f.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 2 {
					f.put("ann/a", storetest.Bytes(2, 1000))
				}
				return lost(n, w, r)
			}
		}, []error{remote.ErrExists}, "PUT PUT HEAD"},
		{"of another creator and length, and no sums", func(f *fake) {
			f.noSums = true
			f.answer = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					f.put("ann/a", body[:999])
					hangUp()
				}
				return false
			}
		}, []error{remote.ErrExists}, "PUT PUT HEAD"},
		{"we may not look", func(f *fake) {
			lost := lose(f)
			f.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				return lost(n, w, r)
			}
		}, []error{remote.ErrExists, remote.ErrDenied}, "PUT PUT HEAD"},
		{"every answer is lost", func(f *fake) {
			f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					f.put("ann/a", body)
					hangUp()
				}
				return false
			}
		}, nil, "PUT PUT PUT PUT PUT HEAD"},
		{"every answer is lost and the object is not ours", func(f *fake) {
			f.put("ann/a", []byte("other"))
			f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					hangUp()
				}
				return false
			}
		}, []error{remote.ErrExists}, "PUT PUT PUT PUT PUT HEAD"},
		{"every answer is lost and nothing was stored", func(f *fake) {
			f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					hangUp()
				}
				return false
			}
		}, []error{remote.ErrNoStore}, "PUT PUT PUT PUT PUT HEAD"},
		{"nothing was lost: the key is just taken by the same bytes", func(f *fake) { f.put("ann/a", body) },
			[]error{remote.ErrExists}, "PUT"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			err := f.open(t).Put(t.Context(), "ann/a", body)
			if (err == nil) != (c.want == nil) {
				t.Errorf("put: %v, want %v", err, c.want)
			}
			for _, want := range c.want {
				if !errors.Is(err, want) {
					t.Errorf("put: %v, want %v", err, want)
				}
			}
			if got := strings.ReplaceAll(strings.Join(f.seen(), " "), " ann/a", ""); got != c.requests {
				t.Errorf("requests %s, want %s", got, c.requests)
			}
		})
	}
}

func TestTheEchoIsCompared(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
		return true
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("put with a wrong echo: %v, want %v", err, remote.ErrCorrupt)
	}

	// Without an echo it asks, and compares what it is told.
	f = newFake(t)
	s = f.open(t)
	f.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			f.put("ann/a", []byte("damaged"))
			w.Header().Set("ETag", `"of the test"`)
		}
		return r.Method == http.MethodPut
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("put with a wrong recorded sum: %v, want %v", err, remote.ErrCorrupt)
	}

	// Of a service without sums it asks once.
	f = newFake(t)
	f.noSums = true
	s = f.open(t)
	for _, key := range []string{"ann/a", "ann/b", "ann/c"} {
		if err := s.Put(t.Context(), key, []byte("x")); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"PUT ann/a", "HEAD ann/a", "PUT ann/b", "PUT ann/c"}, f.seen()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if info, err := s.Stat(t.Context(), "ann/a"); !info.SHA256.IsZero() || err != nil {
		t.Errorf("Stat: %+v, %v; want no sum", info, err)
	}
}

func TestWhatArrivesDamagedIsSentAgain(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	f.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			refuse(w, 400, "BadDigest")
		}
		return n == 1
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); err != nil {
		t.Error(err)
	}
	// But the probe wants to see the refusal.
	if err := s.PutWithSum(t.Context(), "ann/b", []byte("x"), remote.Hash{1}); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("PutWithSum: %v, want %v", err, remote.ErrCorrupt)
	}
	if n := len(f.seen()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// TestAnUploadThatStallsIsSentAgain meets a service that does not read.
func TestAnUploadThatStallsIsSentAgain(t *testing.T) {
	f := newFake(t)
	f.answer = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			<-f.end
			hangUp()
		}
		return false
	}
	body := storetest.Bytes(1, 16<<20) // more than the buffers of a connection hold
	if err := f.open(t, impatient).Put(t.Context(), "ann/a", body); err != nil {
		t.Error(err)
	}
	if got, _ := f.get("ann/a"); !bytes.Equal(got, body) {
		t.Errorf("stored %d bytes, want %d", len(got), len(body))
	}
}

// TestThePutGivesTheBodyBack is for the race detector: the service answers
// before it has read the body, and then the body belongs to the caller.
func TestThePutGivesTheBodyBack(t *testing.T) {
	f := newFake(t)
	f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	s := f.open(t)
	for i := range 20 {
		body := storetest.Bytes(byte(i), 8<<20)
		if err := s.Put(t.Context(), "ann/a", body); err == nil {
			t.Error("put succeeded")
		}
		clear(body)
	}
}

func TestNoKeyAtAllIsNoError(t *testing.T) {
	f := newFake(t)
	s := f.open(t)
	f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, 404, "NoSuchKey")
		return true
	}
	if err := s.Delete(t.Context(), "ann/a"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := s.Stat(t.Context(), "ann/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestAListingGoesOnWhereItBroke(t *testing.T) {
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("ann/%d", i))
	}
	for broken := 1; broken <= 4; broken++ {
		for _, how := range []string{"status", "connection", "xml", "stall"} {
			t.Run(fmt.Sprintf("page %d breaks by %s", broken, how), func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				for _, key := range want {
					f.put(key, nil)
				}
				f.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
					if n != broken {
						return false
					}
					switch how {
					case "status":
						refuse(w, 503, "SlowDown")
					case "connection":
						hangUp()
					case "stall":
						<-f.end
					case "xml":
						_, _ = w.Write([]byte("<ListBucketResult><Contents><Key>ann/7</K"))
					}
					return true
				}
				got, err := storetest.Keys(t.Context(), f.open(t, impatient), "ann/")
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("listing (-want +got), %v:\n%s", err, diff)
				}
			})
		}
	}
}

func TestAListingThatMakesNoSenseIsRefused(t *testing.T) {
	for _, c := range []struct {
		what string
		keys []string
		want error
	}{
		{"no order", []string{"ann/b", "ann/a"}, remote.ErrUnsupported},
		{"repetition", []string{"ann/a", "ann/a"}, remote.ErrUnsupported},
		{"other prefix", []string{"ann/a", "bob/a"}, remote.ErrCorrupt},
	} {
		f := newFake(t)
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			writeList(w, c.keys, 10)
			return true
		}
		keys, err := storetest.Keys(t.Context(), f.open(t), "ann/")
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v; want %v", c.what, keys, err, c.want)
		}
	}
}
