package s3_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
)

// fake is just enough of an S3 service, whose answers a test can replace.
type fake struct {
	*httptest.Server

	// answer, unless nil, is asked first, with the number of the request
	// (from 1, without the one that Open makes). It returns false to let the
	// service answer as usual.
	answer func(n int, w http.ResponseWriter, r *http.Request) bool
	noSums bool          // record no SHA-256 and echo none
	end    chan struct{} // closed at the end of the test

	mu       sync.Mutex
	objects  map[string][]byte
	requests []string // "METHOD key [range]"
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{objects: make(map[string][]byte), end: make(chan struct{})}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		close(f.end)
		f.Close()
	})
	return f
}

// open returns a store in f that tries 5 times.
func (f *fake) open(t *testing.T, change ...func(o *s3.Options)) *s3.Store {
	t.Helper()
	o := s3.Options{
		Endpoint: f.URL, Region: "us-east-1", Bucket: "backups", AccessKey: "access", SecretKey: "secret",
		Attempts: 5, Backoff: time.Microsecond,
	}
	for _, c := range change {
		c(&o)
	}
	s := open(t, o)
	f.mu.Lock()
	f.requests = nil
	f.mu.Unlock()
	return s
}

// impatient calls a transfer stalled after half a second, and so a download that
// takes an eighth to begin. A busy machine may be as slow at times, so it is only
// for what stalls anyhow.
func impatient(o *s3.Options) { o.Stall = 500 * time.Millisecond }

// seen returns the requests so far.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *fake) put(key string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = body
}

func (f *fake) get(key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, ok := f.objects[key]
	return body, ok
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/backups"), "/")
	if r.URL.Query().Get("max-keys") == "1" {
		writeList(w, nil, 1) // Open
		return
	}
	f.mu.Lock()
	f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+key+" "+r.Header.Get("Range")))
	n := len(f.requests)
	f.mu.Unlock()
	if f.answer == nil || !f.answer(n, w, r) {
		f.serve(w, r, key)
	}
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, key string) {
	body, there := f.get(key)
	switch {
	case key == "":
		f.list(w, r)
	case r.Method == http.MethodPut:
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		sum := remote.Sum(sent)
		claimed := r.Header.Get("x-amz-checksum-sha256")
		switch {
		case there:
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		case claimed != base64.StdEncoding.EncodeToString(sum[:]):
			refuse(w, http.StatusBadRequest, "BadDigest")
		default:
			f.put(key, sent)
			w.Header().Set("ETag", `"of the test"`)
			if !f.noSums {
				w.Header().Set("x-amz-checksum-sha256", claimed)
			}
		}
	case r.Method == http.MethodDelete:
		f.mu.Lock()
		delete(f.objects, key)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case !there:
		refuse(w, http.StatusNotFound, "NoSuchKey")
	default:
		if sum := remote.Sum(body); !f.noSums && r.Header.Get("x-amz-checksum-mode") != "" {
			w.Header().Set("x-amz-checksum-sha256", base64.StdEncoding.EncodeToString(sum[:]))
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(body))
	}
}

// list answers in pages of 3.
func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	var keys []string
	for key := range f.objects {
		if strings.HasPrefix(key, q.Get("prefix")) && key > max(q.Get("start-after"), q.Get("continuation-token")) {
			keys = append(keys, key)
		}
	}
	f.mu.Unlock()
	slices.Sort(keys)
	writeList(w, keys, 3)
}

func writeList(w io.Writer, keys []string, page int) {
	type object struct {
		Key          string
		Size         int
		LastModified string
	}
	result := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string
		Contents              []object
	}{IsTruncated: len(keys) > page}
	if result.IsTruncated {
		keys = keys[:page]
		result.NextContinuationToken = keys[page-1]
	}
	for _, key := range keys {
		result.Contents = append(result.Contents, object{key, 1, "2001-09-09T01:46:40.000Z"})
	}
	_ = xml.NewEncoder(w).Encode(result)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>refused by the test</Message></Error>", code)
}

// hangUp breaks the connection without an answer, or in the middle of one.
func hangUp() { panic(http.ErrAbortHandler) }
