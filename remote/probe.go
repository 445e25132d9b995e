package remote

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Capabilities is what a probe found a store to do. Can fields are false too
// where the credentials do not allow to find out.
type Capabilities struct {
	CanRead   bool // gives back what was put
	CanStat   bool // tells an object's size
	CanList   bool // shows an object right after it was put
	CanDelete bool
	HasSum    bool // remembers the SHA-256 of an object

	WriteOnce     bool   // refuses to put over an object that is there
	Rounds        int    // how often several creators raced for one key
	DoubleWins    int    // rounds in which more than one was told to have won
	RefusesDamage Answer // refuses an upload whose bytes do not have the sum sent with them
}

// Answer is yes, no or unknown.
type Answer string

// The answers.
const (
	Unknown Answer = "unknown"
	Yes     Answer = "yes"
	No      Answer = "no"
)

// SumPutter is what a store may offer so that a probe sees whether damaged
// uploads are refused. PutWithSum is Put with a sum that is wrong; a service
// that notices makes it return ErrCorrupt.
type SumPutter interface {
	PutWithSum(ctx context.Context, key string, body []byte, sum Hash) error
}

// Of the race for one key.
const (
	probeRounds   = 10
	probeCreators = 8
)

// cleanUpTime bounds the deletion of a dozen objects.
const cleanUpTime = 30 * time.Second

// Probe tries what a store can do with throw-away objects under
// ".probe-<random>/", which it deletes again if it may. random gives the name.
// The error is about what no store can do without: putting an object. What
// else does not work is in the Capabilities.
func Probe(ctx context.Context, s Store, random io.Reader) (Capabilities, error) {
	var name [8]byte
	if _, err := io.ReadFull(random, name[:]); err != nil {
		return Capabilities{}, fmt.Errorf("probe the store: %w", err)
	}
	p := probe{store: s, prefix: ".probe-" + hex.EncodeToString(name[:]) + "/"}
	p.found.RefusesDamage = Unknown
	err := p.run(ctx)
	// Clean up even if ctx is why we stopped, but not for ever.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	p.cleanUp(clean)
	if err != nil {
		return Capabilities{}, fmt.Errorf("probe the store: %w", err)
	}
	return p.found, nil
}

type probe struct {
	store  Store
	prefix string
	put    []string // keys that may be there
	found  Capabilities
}

func (p *probe) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.object, p.list, p.race, p.wrongSum} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p *probe) key(name string) string {
	key := p.prefix + name
	p.put = append(p.put, key)
	return key
}

// object puts one object and looks at it.
func (p *probe) object(ctx context.Context) error {
	key, body := p.key("object"), []byte("vaultik looks whether this store keeps what it is given\n")
	if err := p.store.Put(ctx, key, body); err != nil {
		return err
	}
	switch err := p.store.Put(ctx, key, []byte("and whether it lets objects be replaced\n")); {
	case errors.Is(err, ErrExists):
		p.found.WriteOnce = true
	case err != nil:
		return err
	}
	back, err := get(ctx, p.store, key, int64(len(body)))
	p.found.CanRead = err == nil && bytes.Equal(back, body)
	if err != nil && !readable(err) {
		return err
	}
	info, err := p.store.Stat(ctx, key)
	p.found.CanStat = err == nil && info.Size == int64(len(body))
	p.found.HasSum = err == nil && info.SHA256 == Sum(body)
	if err != nil && !readable(err) {
		return err
	}
	return nil
}

// readable tells answers of the store, which become capabilities, from not
// getting through to it.
func readable(err error) bool { return errors.Is(err, ErrDenied) || isFinding(err) }

func (p *probe) list(ctx context.Context) error {
	for info, err := range p.store.List(ctx, p.prefix) {
		if err != nil && !readable(err) {
			return err
		}
		p.found.CanList = p.found.CanList || err == nil && info.Key == p.prefix+"object"
	}
	return nil
}

// race lets several creators put different bytes under one key at once.
func (p *probe) race(ctx context.Context) error {
	for round := range probeRounds {
		key := p.key(fmt.Sprintf("race-%d", round))
		var winners atomic.Int32
		start := make(chan struct{})
		g, ctx := errgroup.WithContext(ctx)
		for creator := range probeCreators {
			g.Go(func() error {
				<-start
				err := p.store.Put(ctx, key, fmt.Appendf(nil, "creator %d\n", creator))
				if err == nil {
					winners.Add(1)
				}
				if errors.Is(err, ErrExists) {
					return nil
				}
				return err
			})
		}
		close(start)
		if err := g.Wait(); err != nil {
			return err
		}
		p.found.Rounds++
		if winners.Load() > 1 {
			p.found.DoubleWins++
		}
	}
	return nil
}

func (p *probe) wrongSum(ctx context.Context) error {
	s, ok := p.store.(SumPutter)
	if !ok {
		return nil
	}
	switch err := s.PutWithSum(ctx, p.key("damaged"), []byte("these bytes\n"), Sum([]byte("are not these\n"))); {
	case err == nil:
		p.found.RefusesDamage = No
	case errors.Is(err, ErrCorrupt):
		p.found.RefusesDamage = Yes
	default:
		return err
	}
	return nil
}

func (p *probe) cleanUp(ctx context.Context) {
	p.found.CanDelete = true
	remove := p.store.Delete
	if e, err := NewEraser(ctx, p.store); err == nil {
		remove = func(ctx context.Context, key string) error {
			_, err := e.Erase(ctx, Info{Key: key})
			return err
		}
	}
	for _, key := range p.put {
		if err := remove(ctx, key); err != nil {
			p.found.CanDelete = false
			return
		}
	}
}

// Warnings says, for people, what the store lacks and what follows from it.
func (c Capabilities) Warnings() []string {
	var w []string
	warn := func(lacks bool, text string) {
		if lacks {
			w = append(w, text)
		}
	}
	warn(!c.WriteOnce, "the store lets objects be replaced (it ignores If-None-Match): whoever has these credentials can destroy backups by writing over them; a bucket policy or versioning can prevent that")
	warn(c.DoubleWins > 0, fmt.Sprintf("the store told more than one of several simultaneous creators of an object that it had won, in %d of %d rounds: never let two machines use one writer name", c.DoubleWins, c.Rounds))
	warn(c.RefusesDamage == No, "the store accepts uploads that were damaged on the way, and only reading them back shows it")
	// A folder has no sums to tell and takes none.
	warn(!c.HasSum && c.RefusesDamage != Unknown, "the store does not tell the SHA-256 of its objects (or these credentials may not ask): only downloading them shows that they are unharmed")
	warn(!c.CanRead, "what was put cannot be read back with these credentials: this machine can back up, but neither restore nor compare")
	warn(!c.CanStat || !c.CanList, "objects cannot be listed or looked at with these credentials: a backup does not notice lost blobs")
	warn(!c.CanDelete, "objects cannot be deleted with these credentials: prune must run elsewhere, and the objects of this test stay under .probe-*")
	return w
}
