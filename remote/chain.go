package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Verified is a manifest whose signature holds.
type Verified struct {
	Manifest *Manifest
	Hash     Hash  // of the object, what the next manifest calls previous
	Size     int64 // of the object, in bytes
	Key      PublicKey
}

// ReadManifest gets one manifest and checks it: its signature first, by the
// key in charge of that run, then its bytes, then that it says of itself what
// its key says. Errors wrap ErrNotTrusted, ErrCorrupt, ErrUnsupported,
// fs.ErrNotExist if there is no manifest, or are the store's.
func ReadManifest(ctx context.Context, s Store, signers Signers, writer string, seq Seq) (*Verified, error) {
	if writer != signers.Writer {
		return nil, fmt.Errorf("%w: the signers are those of writer %q, not %q", ErrNotTrusted, signers.Writer, writer)
	}
	v, err := readManifest(ctx, s, signers, seq, MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", ManifestKey(writer, seq), err)
	}
	return v, nil
}

func readManifest(ctx context.Context, s Store, signers Signers, seq Seq, limit int64) (*Verified, error) {
	key := ManifestKey(signers.Writer, seq)
	signer, err := signers.For(seq)
	if err != nil {
		return nil, err
	}
	object, err := get(ctx, s, key, limit)
	if err != nil {
		return nil, err
	}
	signature, err := get(ctx, s, SignatureKey(key), MaxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: its signature is missing", ErrNotTrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("its signature: %w", err)
	}
	if _, err := signer.Verify(object, signature); err != nil {
		return nil, err
	}
	m, err := DecodeManifest(object)
	if err != nil {
		return nil, err
	}
	if m.Writer != signers.Writer || m.Seq != seq {
		return nil, fmt.Errorf("%w: it is the manifest of run %d of writer %q, put in another's place", ErrNotTrusted, m.Seq, m.Writer)
	}
	hash := Sum(object)
	if err := signers.holds(signer, seq, hash); err != nil {
		return nil, err
	}
	return &Verified{Manifest: m, Hash: hash, Size: int64(len(object)), Key: signer}, nil
}

// WriterState is what a store holds of one writer, checked.
type WriterState struct {
	Writer    string
	Signers   Signers
	Snapshots []Verified  // by seq; forgotten ones are left out even if their manifest is still there
	Forgotten []Tombstone // valid ones, by seq
	// Problems are *Problem values by key: manifests that are not trusted,
	// corrupt or unknown, gaps and breaks of the chain, invalid tombstones.
	// A snapshot behind a break of the chain is in Snapshots all the same:
	// its own signature holds. Of a writer without a certified signer it is
	// one, an *Uncertified.
	Problems []error

	unvouched map[Seq]link // manifests that a gap of the chain keeps from being trusted
}

// Stopped returns the problems that forbid deleting anything of this writer,
// nil if there are none.
func (w *WriterState) Stopped() error {
	var stops []error
	for _, err := range slices.Concat(w.Signers.Problems, w.Problems) {
		if p := (*Problem)(nil); errors.As(err, &p) && p.Stops {
			stops = append(stops, err)
		}
	}
	return errors.Join(stops...)
}

// fetches is how many manifests or tombstones are read at once; they are
// small, so this hides the store's latency.
const fetches = 16

// ReadWriter reads and checks everything of a writer but blobs, lists and
// dumps. What is wrong with the objects goes to Problems, also that one of them
// cannot be read where others can; the error is only about getting at the store.
//
// Tombstones are read after the manifests. A purge puts the tombstone before
// it deletes the manifest, so whatever a purge at work hides from the first
// look the second one explains.
func ReadWriter(ctx context.Context, s Store, root PublicKey, writer string) (*WriterState, error) {
	return look{listing: MetadataPrefix(writer)}.read(ctx, s, root, writer)
}

// ReadChain is ReadWriter for whoever does not ask which objects a snapshot
// needs: Blobs, Pins and PinnedDumps of the manifests are checked and then left
// empty. They are most of the memory that a long history takes.
func ReadChain(ctx context.Context, s Store, root PublicKey, writer string) (*WriterState, error) {
	return look{listing: MetadataPrefix(writer), brief: true}.read(ctx, s, root, writer)
}

// Survey is ReadWriter with a listing of all that the writer has: found is
// called for every object of it, one after the other and in the order of keys.
// Manifests are read while the listing comes in, so what a manifest names may
// not be listed though it is there: it was put meanwhile. Of a writer without a
// certified signer nothing is listed.
func Survey(ctx context.Context, s Store, root PublicKey, writer string, found func(Info)) (*WriterState, error) {
	return look{listing: WriterPrefix(writer), found: found}.read(ctx, s, root, writer)
}

// SurveyChain is to Survey what ReadChain is to ReadWriter.
func SurveyChain(ctx context.Context, s Store, root PublicKey, writer string, found func(Info)) (*WriterState, error) {
	return look{listing: WriterPrefix(writer), found: found, brief: true}.read(ctx, s, root, writer)
}

// look is a way to read a writer.
type look struct {
	listing string     // the prefix under which manifests are looked for
	found   func(Info) // is told of all that is listed there; may be nil
	brief   bool       // manifests do not keep what is only for prune and audit
}

func (l look) read(ctx context.Context, s Store, root PublicKey, writer string) (*WriterState, error) {
	w := &WriterState{Writer: writer}
	var err error
	if w.Signers, err = LoadSigners(ctx, s, root, writer); err != nil {
		return nil, err
	}
	if len(w.Signers.Certificates) == 0 { // else every manifest would say it
		w.Problems = []error{&Problem{Key: SignersPrefix(writer), Err: w.Signers.uncertified(root), Stops: true}}
		return w, nil
	}
	c := chain{writer: writer, manifests: make(map[Seq]Verified), broken: make(map[Seq]error), tombstones: make(map[Seq]Tombstone), unvouched: make(map[Seq]link)}
	if err := c.readManifests(ctx, s, w.Signers, l); err != nil {
		return nil, err
	}
	if len(c.manifests) == 0 && c.withheld != nil {
		return nil, c.withheld // these credentials may not read
	}
	if err := c.readTombstones(ctx, s, w.Signers); err != nil {
		return nil, err
	}
	c.withdraw(w.Signers)
	c.verify()
	w.unvouched = c.unvouched
	for _, seq := range slices.Sorted(maps.Keys(c.manifests)) {
		if _, gone := c.tombstones[seq]; !gone {
			w.Snapshots = append(w.Snapshots, c.manifests[seq])
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(c.tombstones)) {
		w.Forgotten = append(w.Forgotten, c.tombstones[seq])
	}
	slices.SortFunc(c.problems, func(a, b *Problem) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Error(), b.Error()))
	})
	for _, p := range c.problems {
		w.Problems = append(w.Problems, p)
	}
	return w, nil
}

// each calls read for every object of one kind, several at a time and while
// the listing still comes in.
func each(ctx context.Context, s Store, prefix string, kind Kind, found func(Info), read func(ctx context.Context, seq Seq, size int64) error) error {
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(fetches)
	var failed error
	for info, err := range s.List(group, prefix) {
		if err != nil {
			failed = fmt.Errorf("list %q: %w", prefix, err)
			break
		}
		if found != nil {
			found(info)
		}
		if k, err := ParseKey(info.Key); err == nil && k.Kind == kind && !k.Signature {
			g.Go(func() error { return read(group, k.Seq, info.Size) })
		}
	}
	// If a read failed, the listing was only told to end.
	return cmp.Or(g.Wait(), failed)
}

func (c *chain) readManifests(ctx context.Context, s Store, signers Signers, l look) error {
	// Whoever may write to the store can make an unsigned "manifest" as big
	// as the limit. One such fits into memory, sixteen at once need not.
	memory := semaphore.NewWeighted(MaxManifest)
	var mu sync.Mutex
	return each(ctx, s, l.listing, KindManifest, l.found, func(ctx context.Context, seq Seq, size int64) error {
		if size < 0 || size > MaxManifest {
			mu.Lock()
			defer mu.Unlock()
			c.broken[seq] = fmt.Errorf("%w: it is listed with %d bytes, and can have from 1 to %d", ErrCorrupt, size, MaxManifest)
			return nil
		}
		if err := memory.Acquire(ctx, size); err != nil {
			return err
		}
		defer memory.Release(size)
		v, err := readManifest(ctx, s, signers, seq, size)
		if err == nil && l.brief {
			v.Manifest.Blobs, v.Manifest.Pins, v.Manifest.PinnedDumps = ObjectList{}, ObjectList{}, nil
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since the listing: a tombstone explains it, or nothing does
		case err != nil && isFinding(err):
			c.broken[seq] = err
		case err != nil && isWithheld(err) && ctx.Err() == nil:
			c.broken[seq] = fmt.Errorf("it cannot be read: %w", err)
			c.withheld = err
		case err != nil:
			return err
		default:
			c.manifests[seq] = *v
		}
		return nil
	})
}

func (c *chain) readTombstones(ctx context.Context, s Store, signers Signers) error {
	var mu sync.Mutex
	return each(ctx, s, ForgottenPrefix(c.writer), KindTombstone, nil, func(ctx context.Context, seq Seq, _ int64) error {
		t, err := readTombstone(ctx, s, signers, seq)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && isFinding(err):
			c.problem(TombstoneKey(c.writer, seq), err, false)
		case err != nil && isWithheld(err) && ctx.Err() == nil:
			c.problem(TombstoneKey(c.writer, seq), fmt.Errorf("it cannot be read: %w", err), false)
		case err != nil:
			return err
		default:
			c.tombstones[seq] = *t
		}
		return nil
	})
}

func readTombstone(ctx context.Context, s Store, signers Signers, seq Seq) (*Tombstone, error) {
	object, err := get(ctx, s, TombstoneKey(signers.Writer, seq), MaxTombstone)
	if err != nil {
		return nil, err
	}
	t, err := DecodeTombstone(object)
	if err != nil {
		return nil, err
	}
	if t.Seq != seq {
		return nil, fmt.Errorf("%w: it is the tombstone of run %d, put in another's place", ErrNotTrusted, t.Seq)
	}
	_, err = t.Verify(signers)
	return t, err
}
