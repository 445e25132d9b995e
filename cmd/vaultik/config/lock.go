package config

import (
	"fmt"
	"strings"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// The settings of object lock.
type (
	LockTime struct{ retention.Span }  // from an upload on; zero: nothing is locked
	LockMode struct{ remote.LockMode } // zero: compliance
)

// shortestLock and longestLock bound object_lock. Less is no time to notice a
// theft in; more is a slip of the pen that nobody could take back.
const (
	shortestLock = 24 * time.Hour
	longestLock  = 10 * 366 * 24 * time.Hour
)

// UnmarshalText reads a span between a day and ten years.
func (l *LockTime) UnmarshalText(text []byte) error {
	span, err := retention.ParseSpan(string(text))
	if err != nil {
		return err
	}
	now := time.Now()
	if d := now.Sub(span.Before(now)); d < shortestLock || d > longestLock {
		return fmt.Errorf("%q is no time to lock objects for: it takes a day at least and ten years at most", text)
	}
	l.Span = span
	return nil
}

// UnmarshalText reads "compliance" or "governance".
func (m *LockMode) UnmarshalText(text []byte) error {
	switch mode := remote.LockMode(strings.ToUpper(string(text))); mode {
	case remote.Compliance, remote.Governance:
		m.LockMode = mode
		return nil
	}
	return fmt.Errorf("%q is no mode of object lock; it can be compliance or governance", text)
}

// LockOf is the lock of what is put from now on, clock being the present; zero:
// none.
func LockOf(length LockTime, mode LockMode, clock func() time.Time) remote.Lock {
	if length.IsZero() {
		return remote.Lock{}
	}
	now := clock()
	l := remote.Lock{Mode: remote.Compliance, For: now.Sub(length.Before(now))}
	if mode.LockMode != "" {
		l.Mode = mode.LockMode
	}
	return l
}

// Lock is LockOf what the config says.
func (c *Config) Lock(clock func() time.Time) remote.Lock {
	return LockOf(c.ObjectLock, c.ObjectLockMode, clock)
}
