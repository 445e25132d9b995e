package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Options say what to look at and whom to trust. Store and Root are needed.
type Options struct {
	Store remote.Store
	Root  remote.PublicKey
	// Flaws returns all that is wrong with a writer. A caller who remembers
	// what the store showed before passes one that calls
	// remote.WriterState.Flaws; nil is what the store alone can tell.
	Flaws func(*remote.WriterState) []error
}

// Count is a number of objects and their size.
type Count struct {
	Objects int64
	Bytes   int64
}

func (c *Count) add(size int64) {
	c.Objects++
	c.Bytes += size
}

// Plus returns the sum of two counts.
func (c Count) Plus(d Count) Count { return Count{c.Objects + d.Objects, c.Bytes + d.Bytes} }

// Object is one that no snapshot needs.
type Object struct {
	remote.Name
	Kind  remote.Kind
	Bytes int64
}

// Plan is what a look at one writer found: what of it can be deleted and what
// stays. It does not grow old, see the package comment.
type Plan struct {
	Writer    string
	Newest    remote.Seq // of the newest manifest; 0 if there is none
	Snapshots int        // retained
	Forgotten int        // with a valid tombstone
	// Flaws is what is wrong with the writer, as Options.Flaws says.
	Flaws []error
	// Stopped is why nothing of this writer may be deleted, nil if it may be.
	// Each of its reasons names an object or the writer and says what to do. A
	// writer without a certified signer is a *remote.Uncertified. Everything
	// below is empty then.
	Stopped error

	Garbage []Object // sorted by kind, manifests first, then by name
	Stays   Stays
	// Missing are keys of objects that a retained snapshot needs and that are
	// not there, MaxMissing at most, and Lost is how many the listing lacks.
	Missing []string
	Lost    int64
}

// Stays is what is not deleted, and why.
type Stays struct {
	Blobs    Count // that snapshots refer to
	Pinned   Count // blobs that no snapshot refers to, but the next run may
	Metadata Count // manifests, signatures, lists, dumps, tombstones, signers
	Newer    Count // under numbers above Newest: of a run under way, or one that was killed
	Strays   Count // whose key is none of ours
}

// Freed is what was deleted, or would be.
type Freed struct {
	Blobs, Dumps, Lists, Manifests Count
	Locked                         Count         // garbage that the store does not let go yet, known when it was tried
	Last                           remote.Erased // of it the object whose lock ends last; for people
}

// Total adds all kinds up.
func (f Freed) Total() Count { return f.Blobs.Plus(f.Dumps).Plus(f.Lists).Plus(f.Manifests) }

func (f *Freed) add(o Object) {
	switch o.Kind {
	case remote.KindBlob:
		f.Blobs.add(o.Bytes)
	case remote.KindDump:
		f.Dumps.add(o.Bytes)
	case remote.KindList:
		f.Lists.add(o.Bytes)
	case remote.KindManifest:
		f.Manifests.add(o.Bytes)
	}
}

// Freed is what Delete will free if nothing fails.
func (p *Plan) Freed() Freed {
	var f Freed
	for _, o := range p.Garbage {
		f.add(o)
	}
	return f
}

// Look finds out what can be deleted of one writer. The error is only about
// getting at the store; what forbids deleting is in Stopped.
func Look(ctx context.Context, o Options, writer string) (*Plan, error) {
	p := &Plan{Writer: writer}
	var all []listed
	w, err := remote.Survey(ctx, o.Store, o.Root, writer, func(info remote.Info) {
		key, err := remote.ParseKey(info.Key)
		if err != nil {
			p.Stays.Strays.add(info.Size)
			return
		}
		key.Writer = writer // lets go of the key's text
		all = append(all, listed{key, info.Size})
	})
	if err != nil {
		return nil, fmt.Errorf("read the manifests of writer %q: %w", writer, err)
	}
	p.Snapshots, p.Forgotten = len(w.Snapshots), len(w.Forgotten)
	if p.Snapshots > 0 { // the newest is never forgotten
		p.Newest = w.Snapshots[p.Snapshots-1].Manifest.Seq
	}
	if o.Flaws != nil {
		p.Flaws = o.Flaws(w)
	} else {
		p.Flaws = slices.Concat(w.Signers.Problems, w.Problems)
	}
	if p.Stopped = w.StoppedBy(p.Flaws); p.Stopped != nil {
		p.Stays = Stays{}
		return p, nil
	}
	k, err := named(ctx, o.Store, w)
	if unreadable := (*remote.Problem)(nil); errors.As(err, &unreadable) {
		p.Flaws, p.Stopped, p.Stays = append(p.Flaws, err), err, Stays{}
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	p.sort(all, w, k)
	if err := p.addHidden(ctx, o.Store, w, k); err != nil {
		return nil, err
	}
	if err := p.findMissing(ctx, o.Store, w, k); err != nil {
		return nil, err
	}
	return p, nil
}

// listed is an object of the writer.
type listed struct {
	key  remote.Key
	size int64
}

// sort decides about every object of the writer.
func (p *Plan) sort(all []listed, w *remote.WriterState, k *keep) {
	forgotten := make(map[remote.Seq]bool, len(w.Forgotten))
	for _, t := range w.Forgotten {
		forgotten[t.Seq] = true
	}
	for _, o := range all {
		switch kind := o.key.Kind; {
		case kind == remote.KindBlob || kind == remote.KindDump || kind == remote.KindList:
			p.decide(o.key, o.size, k)
		case kind == remote.KindManifest && !o.key.Signature && forgotten[o.key.Seq]:
			p.Garbage = append(p.Garbage, Object{remote.Name{Seq: o.key.Seq}, kind, o.size})
		default:
			p.Stays.Metadata.add(o.size)
		}
	}
	slices.SortFunc(p.Garbage, func(a, b Object) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), remote.CompareNames(a.Name, b.Name))
	})
}

// decide applies the rule to an object that is named by its hash.
func (p *Plan) decide(key remote.Key, size int64, k *keep) {
	name := remote.Name{Seq: key.Seq, SHA256: key.Hash}
	set := k.of(key.Kind)
	why, kept := set[name]
	if kept {
		set[name] = why | present
	}
	switch {
	case key.Seq > p.Newest: // and so not named either
		p.Stays.Newer.add(size)
	case !kept:
		p.Garbage = append(p.Garbage, Object{name, key.Kind, size})
	case key.Kind != remote.KindBlob:
		p.Stays.Metadata.add(size)
	case why&needed != 0:
		p.Stays.Blobs.add(size)
	default:
		p.Stays.Pinned.add(size)
	}
}

// rank is the order in which kinds are deleted. Any order is safe; this one
// never leaves a manifest behind that names what is gone.
func rank(k remote.Kind) int {
	return slices.Index([]remote.Kind{remote.KindManifest, remote.KindBlob, remote.KindDump, remote.KindList}, k)
}
