package s3_test

import (
	"net/http"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
)

// A message names the object, the store and the reason once, and says what to
// do.
func TestAFailedPutSaysWhatWhereAndWhyOnce(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, because string
	}{
		{403, "AccessDenied", "not allowed by the store: the credentials' policy has to permit it: "},
		{403, "QuotaExceeded", "the store is full, make room there or raise its quota: "},
		{507, "XMinioStorageFull", "the store is full, make room there or raise its quota: "},
		{507, "InsufficientStorage", "the store is full, make room there or raise its quota: "},
	} {
		f := newFake(t)
		f.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, c.status, c.code)
			return true
		}
		err := f.open(t).Put(t.Context(), "ann/a", []byte("x"))
		if err == nil || !strings.HasPrefix(err.Error(), `put "ann/a" in s3://backups?`) || !strings.Contains(err.Error(), c.because) ||
			strings.Count(err.Error(), "ann/a") != 1 {
			t.Errorf("%s: %v", c.code, err)
		}
	}
}

// The same holds where a put looked at what is there.
func TestAPutThatMayNotLookNamesTheKeyOnce(t *testing.T) {
	f := newFake(t)
	f.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method != http.MethodPut:
			w.WriteHeader(http.StatusForbidden)
			return true
		case n == 1:
			f.put("ann/a", []byte("x"))
			hangUp()
		}
		return false
	}
	err := f.open(t).Put(t.Context(), "ann/a", []byte("x"))
	if err == nil || strings.Count(err.Error(), "ann/a") != 1 || strings.Count(err.Error(), remote.ErrDenied.Error()) != 1 {
		t.Error(err)
	}
}
