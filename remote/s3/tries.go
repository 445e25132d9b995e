package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// slowAfter is how long a person may wait without a word.
	slowAfter = 5 * time.Second
	// slowEvery is how often the word is repeated.
	slowEvery = 30 * time.Second
	// leastTries is how often a call is tried however long that takes: a
	// large upload may break after an hour, and deserves another one.
	leastTries = 3
)

// errSilent is what Options.Slow hears while an answer is missing.
var errSilent = fmt.Errorf("no answer for %v", slowAfter)

// tries counts the failures of one call since it last made progress.
type tries struct {
	store    *Store
	most     int
	failures int
	since    time.Time // of the first failure
}

func (s *Store) tries(most int) *tries { return &tries{store: s, most: most} }

// progress forgets the failures so far.
func (t *tries) progress() { t.failures = 0 }

// again counts the failure err and reports whether the call should be tried
// again. If so it has waited: a random time, so that many clients that failed
// together do not come back together.
func (t *tries) again(ctx context.Context, err error) bool {
	s, now := t.store, time.Now()
	if t.failures++; t.failures == 1 {
		t.since = now
	}
	if ctx.Err() != nil || t.failures >= t.most || !s.retryable(err) ||
		t.failures >= leastTries && now.Sub(t.since) >= s.opts.Patience {
		return false
	}
	longest := s.opts.Backoff * 100
	if t.failures <= 6 {
		longest = s.opts.Backoff << t.failures >> 1
	}
	wait := time.Duration(s.jitter() * float64(longest))
	if now.Add(wait).Sub(t.since) >= slowAfter {
		s.slow(err)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// slow tells the person, unless that was done a moment ago: all calls fail
// together when the service does.
func (s *Store) slow(why error) {
	if s.opts.Slow == nil {
		return
	}
	s.mu.Lock()
	now := time.Now()
	due := s.slowTold.IsZero() || now.Sub(s.slowTold) >= slowEvery
	if due {
		s.slowTold = now
	}
	s.mu.Unlock()
	if due {
		s.opts.Slow(brief(why))
	}
}

// brief is err without the request's address and the service's prose.
func brief(err error) error {
	var answer minio.ErrorResponse
	var request *url.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == 0:
		return errors.New(answer.Message) // minio's own finding
	case errors.As(err, &answer) && strings.HasPrefix(answer.Code, fmt.Sprint(answer.StatusCode)):
		return fmt.Errorf("HTTP %s", answer.Code) // minio's code for an answer without one
	case errors.As(err, &answer):
		return fmt.Errorf("HTTP %d %s", answer.StatusCode, answer.Code)
	case errors.Is(err, errStalled):
		return errStalled
	case errors.As(err, &request):
		return request.Err
	}
	return err
}
