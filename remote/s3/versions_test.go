package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// overwriter puts objects as somebody does who does not ask first.
func overwriter(t *testing.T, g *storetest.Gateway, prefix string) func(ctx context.Context, key string, body []byte) error {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(g.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(g.AccessKey, g.SecretKey, ""), Region: g.Region,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, key string, body []byte) error {
		_, err := c.PutObject(ctx, g.Bucket, prefix+"/"+key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{SendContentMd5: true, DisableMultipart: true})
		return err
	}
}

func TestStoreKeepsTheContractInABucketWithVersions(t *testing.T) {
	g := storetest.StartLockingGateway(t)
	storetest.Run(t, prefixes(g), storetest.MarkersTake)
}

func TestStoreKeepsVersionsAndLocks(t *testing.T) {
	g := storetest.StartLockingGateway(t)
	var n atomic.Int32
	storetest.RunVersioned(t, func(t *testing.T) storetest.LockingStore {
		prefix := fmt.Sprintf("test/%d", n.Add(1))
		return storetest.LockingStore{
			Store:     open(t, options(g, prefix)),
			Overwrite: overwriter(t, g, prefix),
			Expire:    func() { g.ExpireLocks(t) }, Settle: func() { g.SettleTimes(t) },
		}
	}, storetest.MarkersTake)
}

func TestABucketWithoutLockIsRefused(t *testing.T) {
	g := storetest.StartGateway(t, false)
	s := open(t, options(g, ""))
	if keeps, err := s.KeepsVersions(t.Context()); keeps || err != nil {
		t.Errorf("it keeps versions: %v, %v", keeps, err)
	}
	lock := remote.Lock{Mode: remote.Compliance, For: time.Hour}
	if err := remote.LockPuts(t.Context(), s, lock); !errors.Is(err, remote.ErrNoLock) {
		t.Errorf("asked for a lock: %v, want %v", err, remote.ErrNoLock)
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); err != nil {
		t.Errorf("put without a lock: %v", err)
	}
	s.LockPuts(lock) // as with credentials that may not ask
	if err := s.Put(t.Context(), "ann/b", []byte("x")); !errors.Is(err, remote.ErrNoLock) {
		t.Errorf("put with a lock: %v, want %v", err, remote.ErrNoLock)
	}
}

var _ remote.Locking = (*s3.Store)(nil)

// forbidding answers requests with a certain query parameter as a policy does
// that does not permit them.
type forbidding struct{ parameter string }

func (f forbidding) RoundTrip(r *http.Request) (*http.Response, error) {
	if !r.URL.Query().Has(f.parameter) {
		return http.DefaultTransport.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusForbidden, Request: r, Header: http.Header{"Content-Type": {"application/xml"}},
		Body: io.NopCloser(strings.NewReader("<Error><Code>AccessDenied</Code><Message>no</Message></Error>")),
	}, nil
}

func TestCredentialsThatMayNotAskForVersioningSeeItInAnObject(t *testing.T) {
	for _, c := range []struct {
		gateway *storetest.Gateway
		keeps   bool
	}{{storetest.StartGateway(t, false), false}, {storetest.StartLockingGateway(t), true}} {
		o := options(c.gateway, "")
		o.Transport = forbidding{"versioning"}
		s := open(t, o)
		if keeps, err := s.KeepsVersions(t.Context()); keeps || err != nil {
			t.Errorf("an empty store keeps versions: %v, %v", keeps, err)
		}
		if err := s.Put(t.Context(), "ann/a", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if keeps, err := s.KeepsVersions(t.Context()); keeps != c.keeps || err != nil {
			t.Errorf("it keeps versions: %v, %v; want %v", keeps, err, c.keeps)
		}
	}
}

func TestCredentialsThatMayNotAskForTheLockFindOut(t *testing.T) {
	g := storetest.StartLockingGateway(t)
	o := options(g, "")
	o.Transport = forbidding{"object-lock"}
	s := open(t, o)
	if err := s.CheckLock(t.Context()); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("asked: %v, want %v", err, remote.ErrDenied)
	}
	if err := remote.LockPuts(t.Context(), s, remote.Lock{Mode: remote.Governance, For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "ann/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for v, err := range s.Versions(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.Retention(t.Context(), v.Key, v.ID); r.Mode != remote.Governance || err != nil {
			t.Errorf("locked %+v, %v", r, err)
		}
	}
}
