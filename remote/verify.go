package remote

import (
	"fmt"
	"maps"
	"slices"
)

// chain is what was found of a writer's manifests while it is being checked.
// Every manifest names the one before by its hash, and a tombstone stands in
// for the manifest that it forgets.
type chain struct {
	writer     string
	manifests  map[Seq]Verified
	broken     map[Seq]error // manifests that are there and do not hold
	tombstones map[Seq]Tombstone
	unvouched  map[Seq]link // of broken, what a revoked key signed and would hold if the chain led there
	problems   []*Problem
	withheld   error // why a manifest could not be read, nil if none was withheld
}

func (c *chain) problem(key string, err error, stops bool) {
	c.problems = append(c.problems, &Problem{Key: key, Err: err, Stops: stops})
}

// verify drops tombstones that do not apply, and reports these, the manifests
// that do not hold, the gaps and the breaks.
func (c *chain) verify() {
	c.checkTombstones()
	for seq, err := range c.broken {
		if _, forgotten := c.tombstones[seq]; !forgotten {
			c.problem(ManifestKey(c.writer, seq), err, true)
		}
	}
	// Only what is signed says how long the chain is: an object that anybody
	// put under a high seq does not make everything before it missing.
	signed := slices.Sorted(maps.Keys(c.manifests))
	for seq := range c.tombstones {
		if _, both := c.manifests[seq]; !both {
			signed = append(signed, seq)
		}
	}
	slices.Sort(signed)
	known := slices.AppendSeq(slices.Clone(signed), maps.Keys(c.broken))
	slices.Sort(known)
	known = slices.Compact(known)

	for i, last := 0, Seq(0); i < len(known) && len(signed) > 0 && known[i] <= signed[len(signed)-1]; i++ {
		c.checkGap(last, known[i])
		last = known[i]
	}
	for i := 1; i < len(signed); i++ {
		if signed[i] == signed[i-1]+1 {
			c.checkLink(signed[i-1], signed[i])
		}
	}
	c.checkEnd(signed)
}

// checkTombstones drops those that are about another manifest than the one
// that is there, and that of the newest manifest: it is what the writer builds
// its next run on, and nobody forgets it. A newer one that this version cannot
// read makes it no longer the newest.
func (c *chain) checkTombstones() {
	var newest Seq
	for seq := range c.manifests {
		newest = max(newest, seq)
	}
	for seq := range c.broken {
		newest = max(newest, seq)
	}
	for seq, t := range c.tombstones {
		m, there := c.manifests[seq]
		switch {
		case !there:
			continue
		case m.Hash != t.Manifest || !equal(m.Manifest.Previous, t.Previous):
			c.problem(TombstoneKey(c.writer, seq), fmt.Errorf("%w: it is about another manifest than the one that is there, and is ignored", ErrNotTrusted), false)
		case seq == newest:
			c.problem(TombstoneKey(c.writer, seq), fmt.Errorf("%w: it is about the newest manifest, which nobody may forget, and is ignored; if there was a newer one, it is gone", ErrNotTrusted), false)
		default:
			continue
		}
		delete(c.tombstones, seq)
	}
}

// checkGap reports the runs between last and next, neighbours among those of
// which something is there.
func (c *chain) checkGap(last, next Seq) {
	switch next - last {
	case 0, 1:
	case 2:
		c.problem(ManifestKey(c.writer, last+1), fmt.Errorf("%w: there is no manifest of run %d and no valid tombstone for it; "+
			"if it is lost for good, \"vaultik snapshot purge --writer %s --missing %d\" closes the gap", ErrMissing, last+1, c.writer, last+1), true)
	default:
		c.problem(ManifestKey(c.writer, last+1), fmt.Errorf("%w: there are no manifests of the runs %d to %d and no valid tombstones for them; "+
			"if they are lost for good, \"vaultik snapshot purge --writer %s --missing %d-%d\" closes the gap", ErrMissing, last+1, next-1, c.writer, last+1, next-1), true)
	}
}

// checkLink checks that what is known of run b follows what is known of a.
func (c *chain) checkLink(a, b Seq) {
	hash, _, _ := c.link(a)
	_, previous, key := c.link(b)
	if !equal(previous, &hash) {
		c.problem(key, fmt.Errorf("%w: it follows another manifest of run %d than the one known here; "+
			"either that one was replaced, or two machines write with one writer's key", ErrNotTrusted, a), true)
	}
}

// link returns the hash of a run's manifest, that of the one before, and the
// key of the object that says so.
func (c *chain) link(seq Seq) (hash Hash, previous *Hash, key string) {
	if m, ok := c.manifests[seq]; ok {
		return m.Hash, m.Manifest.Previous, ManifestKey(c.writer, seq)
	}
	t := c.tombstones[seq]
	return t.Manifest, t.Previous, TombstoneKey(c.writer, seq)
}

// checkEnd notices a chain that ends with a tombstone: as the newest manifest
// is never forgotten, a newer one must have been there.
func (c *chain) checkEnd(signed []Seq) {
	if len(signed) == 0 {
		return
	}
	end := signed[len(signed)-1]
	if _, ok := c.manifests[end]; ok {
		return
	}
	for seq := range c.broken {
		if seq > end {
			return // it is reported itself
		}
	}
	c.problem(ManifestKey(c.writer, end+1), fmt.Errorf("%w: run %d was forgotten, which happens only to runs that are not the newest, "+
		"but nothing newer is there", ErrMissing, end), true)
}

func equal(a, b *Hash) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}
