package s3_test

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options returns those of a store in g that gives up soon.
func options(g *storetest.Gateway, prefix string) s3.Options {
	o := s3.Options{
		Endpoint: g.Endpoint, Region: g.Region, Bucket: g.Bucket, Prefix: prefix,
		AccessKey: g.AccessKey, SecretKey: g.SecretKey,
		Attempts: 4, Backoff: time.Millisecond,
	}
	if g.Roots != nil {
		o.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: g.Roots}}
	}
	return o
}

func open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// prefixes returns an opener of stores in g, each with a prefix of its own.
func prefixes(g *storetest.Gateway) func(t *testing.T) remote.Store {
	var n atomic.Int32
	return func(t *testing.T) remote.Store {
		return open(t, options(g, fmt.Sprintf("test/%d", n.Add(1))))
	}
}

func TestStoreKeepsTheContract(t *testing.T) {
	g := storetest.StartGateway(t, false)
	storetest.Run(t, prefixes(g))
}

func TestStoreKeepsTheContractOverTLS(t *testing.T) {
	g := storetest.StartGateway(t, true)
	storetest.Run(t, prefixes(g))
}

func TestThePrefixFencesTheStoreIn(t *testing.T) {
	g := storetest.StartGateway(t, false)
	inner, sibling, whole := open(t, options(g, "a/b")), open(t, options(g, "a/b2")), open(t, options(g, ""))
	for s, key := range map[*s3.Store]string{inner: "ann/x", sibling: "ann/y", whole: "ann/z"} {
		if err := s.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct {
		store *s3.Store
		keys  string
	}{{inner, "[ann/x]"}, {sibling, "[ann/y]"}, {whole, "[a/b/ann/x a/b2/ann/y ann/z]"}} {
		keys, err := storetest.Keys(t.Context(), want.store, "")
		if fmt.Sprint(keys) != want.keys || err != nil {
			t.Errorf("listed %q, %v; want %s", keys, err, want.keys)
		}
	}
}

func TestTheServiceRecordsTheSumAndRefusesOthers(t *testing.T) {
	g := storetest.StartGateway(t, false)
	s := open(t, options(g, ""))
	body := []byte("the body")
	if err := s.Put(t.Context(), "ann/a", body); err != nil {
		t.Fatal(err)
	}
	info, err := s.Stat(t.Context(), "ann/a")
	if err != nil || info.SHA256 != remote.Sum(body) {
		t.Errorf("recorded %v, %v; want %v", info.SHA256, err, remote.Sum(body))
	}
	err = s.PutWithSum(t.Context(), "ann/b", body, remote.Sum([]byte("another")))
	if !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("put with a wrong sum: %v, want %v", err, remote.ErrCorrupt)
	}
	if err := s.PutWithSum(t.Context(), "ann/b", body, remote.Sum(body)); err != nil {
		t.Errorf("put with the right sum after it: %v", err)
	}

	// The recorded sum is that of the upload: rot below it goes unnoticed,
	// which is why every reader compares hashes.
	if err := os.WriteFile(filepath.Join(g.Folder, "ann", "a"), []byte("the bodY"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := storetest.Read(t.Context(), s, "ann/a", 0, -1)
	if err != nil || string(got) != "the bodY" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestTheProbeFindsNothingToWarnOf(t *testing.T) {
	g := storetest.StartGateway(t, false)
	var s remote.Store = open(t, options(g, "hosts"))
	if _, ok := s.(remote.SumPutter); !ok {
		t.Error("the store offers no PutWithSum")
	}
	found, err := remote.Probe(t.Context(), s, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if warnings := found.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	if keys, err := storetest.Keys(t.Context(), s, ""); len(keys) > 0 || err != nil {
		t.Errorf("the probe left %q, %v", keys, err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	g := storetest.StartGateway(t, false)
	secure := storetest.StartGateway(t, true)
	for _, c := range []struct {
		what   string
		change func(o *s3.Options)
	}{
		{"a missing bucket", func(o *s3.Options) { o.Bucket = "missing" }},
		{"nobody listens", func(o *s3.Options) { o.Endpoint = "http://127.0.0.1:1" }},
		{"no such host", func(o *s3.Options) { o.Endpoint = "http://s3.invalid" }},
		{"TLS with a server that has none", func(o *s3.Options) { o.Endpoint = "https" + o.Endpoint[len("http"):] }},
		{"a certificate of nobody we know", func(o *s3.Options) { o.Endpoint = secure.Endpoint }},
	} {
		o := options(g, "")
		c.change(&o)
		_, err := s3.Open(t.Context(), o)
		if !errors.Is(err, remote.ErrNoStore) {
			t.Errorf("%s: %v, want %v", c.what, err, remote.ErrNoStore)
		}
		t.Logf("%s: %v", c.what, err)
	}

	o := options(g, "")
	o.SecretKey = "wrong"
	s := open(t, o) // the credentials may be good for PutObject alone
	err := s.Put(t.Context(), "ann/a", nil)
	if !errors.Is(err, remote.ErrDenied) {
		t.Errorf("a wrong secret: %v, want %v", err, remote.ErrDenied)
	}
	t.Logf("a wrong secret: %v", err)
}

func TestCallsOutliveARestartOfTheService(t *testing.T) {
	g := storetest.StartGateway(t, false)
	o := options(g, "")
	o.Attempts, o.Backoff = 60, 20*time.Millisecond
	s := open(t, o)
	body := storetest.Bytes(1, 1<<20)
	if err := s.Put(t.Context(), "ann/a", body); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	done := make(chan error, 1)
	go func() { done <- s.Put(t.Context(), "ann/b", body) }()
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, key := range []string{"ann/a", "ann/b"} {
		got, err := storetest.Read(t.Context(), s, key, 0, -1)
		if err != nil || remote.Sum(got) != remote.Sum(body) {
			t.Errorf("%q after the restart: %d bytes, %v", key, len(got), err)
		}
	}
}
