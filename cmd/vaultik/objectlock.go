package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// The settings of object lock.
type (
	lockTime struct{ retention.Span }
	lockMode struct{ remote.LockMode } // zero: compliance
)

// shortestLock and longestLock bound object_lock. Less is no time to notice a
// theft in; more is a slip of the pen that nobody could take back.
const (
	shortestLock = 24 * time.Hour
	longestLock  = 10 * 366 * 24 * time.Hour
)

func (l *lockTime) UnmarshalText(text []byte) error {
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

func (m *lockMode) UnmarshalText(text []byte) error {
	switch mode := remote.LockMode(strings.ToUpper(string(text))); mode {
	case remote.Compliance, remote.Governance:
		m.LockMode = mode
		return nil
	}
	return fmt.Errorf("%q is no mode of object lock; it can be compliance or governance", text)
}

// lockOptions reads --object-lock and --object-lock-mode.
func lockOptions(c *cli.Context, length *lockTime, mode *lockMode) error {
	if text := c.String("object-lock"); text != "" {
		if err := length.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("--object-lock: %w", err)
		}
	}
	if text := c.String("object-lock-mode"); text != "" {
		if err := mode.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("--object-lock-mode: %w", err)
		}
	}
	return nil
}

// lockOf is the lock of what is put from now on; zero: none.
func lockOf(length lockTime, mode lockMode, clock func() time.Time) remote.Lock {
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

// lock is what the config says.
func (c *config) lock(clock func() time.Time) remote.Lock {
	return lockOf(c.ObjectLock, c.ObjectLockMode, clock)
}

// lockText is the lock in the config that init writes.
func (s *setup) lockText() string {
	length, mode := "#object_lock = \"30d\"", "#object_lock_mode = \"compliance\""
	if !s.lockTime.IsZero() {
		length = "object_lock = " + tomlString(s.lockTime.String())
	}
	if s.lockMode.LockMode != "" {
		mode = "object_lock_mode = " + tomlString(strings.ToLower(string(s.lockMode.LockMode)))
	}
	return length + "\n" + mode
}
