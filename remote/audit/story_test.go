package audit_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// line is a finding in a line: its kind, the object, who needs it.
func line(f audit.Finding) string {
	s := string(f.Kind)
	if f.Set != "" {
		s += " " + f.Set
	}
	if f.Key != "" {
		s += " " + strings.TrimPrefix(f.Key, "ann/")
	}
	if f.Needed > 0 || f.Pinned {
		s += fmt.Sprintf(" needed by %d", f.Needed)
	}
	if f.Pinned {
		s += " pinned"
	}
	if f.Deleted {
		s += " deleted"
	}
	return s
}

func lines(found []audit.Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, line(f))
	}
	return all
}

func below(k string) string { return strings.TrimPrefix(k, "ann/") }

// What can happen to a store, and what a quick look, a look, and a look at all
// bytes make of it: what is found, whether it is a matter of trust, and some
// words of each message.
func TestWhatAnAuditFinds(t *testing.T) {
	m3, t3 := below(manifestKey(3)), below(remote.TombstoneKey("ann", 3))
	for name, c := range map[string]struct {
		happen func(w *world)
		lie    func(w *world, l *lying)
		quick  []string // what the level without checksums finds
		sums   []string // if it differs
		read   []string // if that differs
		trust  bool
		says   string
	}{
		"nothing": {},
		"a purge and a prune": {
			happen: func(w *world) {
				w.put(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[3], "ann"))
				w.remove(manifestKey(3), blobKey(w.objects[3].Blobs.Add[0]), remote.DumpKey("ann", 3, w.objects[3].Dumps[1].SHA256))
			},
		},
		"a forged manifest": {
			happen: func(w *world) { w.commit(w.manifest(6), "mallory") },
			quick:  []string{"not-trusted " + below(manifestKey(6))}, trust: true, says: "its signature is by key",
		},
		"a manifest changed": {
			happen: func(w *world) { w.flip(manifestKey(3)) },
			quick:  []string{"not-trusted " + m3}, trust: true, says: "its signature is wrong",
		},
		"a manifest of another run in its place": {
			happen: func(w *world) {
				w.replace(manifestKey(3), w.get(manifestKey(1)))
				w.replace(remote.SignatureKey(manifestKey(3)), w.get(remote.SignatureKey(manifestKey(1))))
			},
			quick: []string{"not-trusted " + m3}, trust: true, says: "it is the manifest of run 1",
		},
		"a manifest played back as the newest": {
			happen: func(w *world) {
				w.put(manifestKey(6), w.get(manifestKey(1)))
				w.put(remote.SignatureKey(manifestKey(6)), w.get(remote.SignatureKey(manifestKey(1))))
			},
			quick: []string{"not-trusted " + below(manifestKey(6))}, trust: true, says: "put in another's place",
		},
		"another writer's manifest": {
			happen: func(w *world) {
				m := *w.objects[3]
				m.Writer, m.Snapshot = "bob", "bob-20260104-030000Z"
				object, err := m.Encode()
				if err != nil {
					w.t.Fatal(err)
				}
				w.replace(manifestKey(3), object)
				w.replace(remote.SignatureKey(manifestKey(3)), key(w.t, "ann").Sign(object, ""))
			},
			quick: []string{"not-trusted " + m3}, trust: true, says: `of writer "bob"`,
		},
		"a manifest deleted, and no tombstone": {
			happen: func(w *world) { w.remove(manifestKey(3)) },
			quick:  []string{"gap " + m3}, trust: true, says: "--missing 3",
		},
		"a signature deleted": {
			happen: func(w *world) { w.remove(remote.SignatureKey(manifestKey(3))) },
			quick:  []string{"not-trusted " + m3}, trust: true, says: "its signature is missing",
		},
		"a forged tombstone": {
			happen: func(w *world) { w.put(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[3], "mallory")) },
			quick:  []string{"not-trusted " + t3}, trust: true, says: "nobody signed it who may forget",
		},
		"a forged tombstone, and the manifest deleted": {
			happen: func(w *world) {
				w.put(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[3], "mallory"))
				w.remove(manifestKey(3))
			},
			quick: []string{"not-trusted " + t3, "gap " + m3}, trust: true, says: "no valid tombstone",
		},
		"a tombstone of another manifest": {
			happen: func(w *world) { w.put(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[2], "ann")) },
			quick:  []string{"not-trusted " + t3}, trust: true, says: "about another manifest",
		},
		"a second tombstone in place of the first": {
			happen: func(w *world) {
				w.put(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[3], "ann"))
				w.remove(manifestKey(3))
				w.replace(remote.TombstoneKey("ann", 3), w.tombstone(3, w.hashes[2], "ann"))
			},
			quick: []string{"not-trusted " + below(manifestKey(4))}, trust: true, says: "follows another manifest of run 3",
		},
		"a tombstone of another run": {
			happen: func(w *world) { w.put(remote.TombstoneKey("ann", 3), w.tombstone(2, w.hashes[2], "ann")) },
			quick:  []string{"not-trusted " + t3}, trust: true, says: "put in another's place",
		},
		"a tombstone of the newest": {
			happen: func(w *world) { w.put(remote.TombstoneKey("ann", 5), w.tombstone(5, w.hashes[5], "ann")) },
			quick:  []string{"not-trusted " + below(remote.TombstoneKey("ann", 5))}, trust: true, says: "nobody may forget",
		},
		"the writer's certificate gone": {
			happen: func(w *world) { w.remove(remote.SignatureKey(remote.SignerKey("ann", 1))) },
			quick:  []string{"uncertified"}, says: "vaultik key certify ann",
		},
		"a blob that all of a set share is lost": {
			happen: func(w *world) { w.remove(blobKey(shared(1))) },
			quick:  []string{"missing " + below(blobKey(shared(1))) + " needed by 3"}, says: "it is not in the store",
		},
		"a blob that the newest pins is lost": {
			happen: func(w *world) { w.remove(blobKey(shared(3))) },
			quick:  []string{"missing " + below(blobKey(shared(3))) + " needed by 2 pinned"},
		},
		"a dump that another is a difference to is lost": {
			happen: func(w *world) { w.remove(dumpKey(1)) },
			quick:  []string{"missing " + below(dumpKey(1)) + " needed by 2"},
		},
		"a dump that the newest pins is cut short": {
			happen: func(w *world) { w.replace(dumpKey(4), []byte("dump of")) },
			quick:  []string{"wrong-size " + below(dumpKey(4)) + " needed by 1 pinned"}, says: "it has 7 bytes instead of 13",
			read: []string{
				"wrong-size " + below(dumpKey(4)) + " needed by 1 pinned",
				"rotten " + below(dumpKey(4)) + " needed by 1 pinned",
			},
		},
		"the list is lost": {
			happen: func(w *world) { w.remove(listKey()) },
			quick:  []string{"missing " + below(listKey()) + " needed by 3"}, says: "need cannot be told",
		},
		"the list is damaged": {
			happen: func(w *world) { w.flip(listKey()) },
			quick:  []string{"corrupt " + below(listKey()) + " needed by 3"}, says: "not those that the manifest signs",
		},
		"a blob was uploaded wrong": {
			happen: func(w *world) { w.flip(blobKey(shared(2))) },
			sums:   []string{"wrong-checksum " + below(blobKey(shared(2))) + " needed by 3"},
			read: []string{
				"wrong-checksum " + below(blobKey(shared(2))) + " needed by 3",
				"rotten " + below(blobKey(shared(2))) + " needed by 3",
			},
			says: "the store recorded",
		},
		"a blob rots, and the store still names its old checksum": {
			happen: func(w *world) { w.flip(blobKey(shared(2))) },
			lie:    func(w *world, l *lying) { l.sums[blobKey(shared(2))] = shared(2).SHA256 },
			read:   []string{"rotten " + below(blobKey(shared(2))) + " needed by 3"}, says: "not those of its name",
		},
		"a listing names what is not there": {
			lie:  func(w *world, l *lying) { l.gone = blobKey(shared(2)) },
			sums: []string{"missing " + below(blobKey(shared(2))) + " needed by 3"}, says: "though it is listed",
		},
		"a listing says another size": {
			lie:   func(w *world, l *lying) { l.sizes[blobKey(shared(2))] = 7 },
			quick: []string{"wrong-size " + below(blobKey(shared(2))) + " needed by 3"}, says: "7 bytes instead of 8",
		},
		"a listing says the right size of a short one": {
			happen: func(w *world) { w.replace(blobKey(shared(2)), []byte("shared")) },
			lie:    func(w *world, l *lying) { l.sizes[blobKey(shared(2))] = 8 },
			sums:   []string{"wrong-size " + below(blobKey(shared(2))) + " needed by 3"},
			read: []string{
				"wrong-size " + below(blobKey(shared(2))) + " needed by 3",
				"rotten " + below(blobKey(shared(2))) + " needed by 3",
			},
			says: "though the listing says 8",
		},
		"a listing hides an object": {
			lie:   func(w *world, l *lying) { l.hide = blobKey(shared(2)) },
			quick: []string{"unlisted " + below(blobKey(shared(2))) + " needed by 3"}, says: "the listing hides it",
		},
		"a listing hides a manifest": {
			lie:   func(w *world, l *lying) { l.hide = manifestKey(3) },
			quick: []string{"gap " + m3}, trust: true,
		},
		"somebody's notes": {
			happen: func(w *world) { w.put("ann/blobs/README", []byte("!")) },
			quick:  []string{"stray blobs/README"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			w := newWorld(t)
			if c.happen != nil {
				c.happen(w)
			}
			var all []audit.Finding
			look := func(what string, want []string, opts ...func(*audit.Options)) {
				l := &lying{Store: w.Store, sizes: map[string]int64{}, sums: map[string]remote.Hash{}, reads: map[string]int{}}
				if c.lie != nil {
					c.lie(w, l)
				}
				_, found := w.audit(l, opts...)
				if diff := cmp.Diff(want, lines(found)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
				all = append(all, found...)
			}
			if c.sums == nil {
				c.sums = c.quick
			}
			if c.read == nil {
				c.read = c.sums
			}
			look("quick", c.quick, quick)
			look("checksums", c.sums)
			look("all bytes", c.read, reading(audit.Read{}))
			trusted, said := true, c.says == ""
			for _, f := range all {
				trusted = trusted && !trust(f)
				said = said || strings.Contains(f.Err.Error(), c.says)
			}
			if trusted == c.trust {
				t.Errorf("a matter of trust: %t, want %t", !trusted, c.trust)
			}
			if !said {
				t.Errorf("nothing says %q: %v", c.says, all)
			}
		})
	}
}

// Whoever has seen more notices that the end of the chain is hidden; a first
// look cannot, and the result says so.
func TestAHiddenEndIsSeenByWhoHasSeenMore(t *testing.T) {
	w := newWorld(t)
	seen, err := remote.OpenSeen(filepath.Join(t.TempDir(), "seen.json"))
	if err != nil {
		t.Fatal(err)
	}
	remembers := func(o *audit.Options) { o.Seen = seen }
	result, found := w.audit(w, remembers)
	if len(found) > 0 || len(result.Unknown) != 1 {
		t.Errorf("first look: %v, unknown %q", lines(found), result.Unknown)
	}
	w.remove(manifestKey(5), remote.SignatureKey(manifestKey(5)))
	result, found = w.audit(w, remembers)
	if len(found) != 1 || found[0].Kind != audit.Rollback || !trust(found[0]) || len(result.Unknown) != 0 {
		t.Errorf("second look: %v, unknown %q", lines(found), result.Unknown)
	}
	if result, found = w.audit(w); len(found) > 0 || len(result.Unknown) != 1 {
		t.Errorf("somebody else's first look: %v, unknown %q", lines(found), result.Unknown)
	}
}

// What a backup uploads while the listing is made is there.
func TestABackupAtWorkMakesNoFindings(t *testing.T) {
	w := newWorld(t)
	_, found := w.audit(&lagging{Store: w.Store, late: blobKey(shared(2))})
	if len(found) > 0 {
		t.Errorf("found %q", lines(found))
	}
}

// What a purge and a prune at work take away between two looks is not missing.
func TestAPruneAtWorkMakesNoFindings(t *testing.T) {
	w := newWorld(t)
	_, found := w.audit(&purging{Store: w.Store, w: w})
	if len(found) > 0 {
		t.Errorf("found %q", lines(found))
	}
}

// The ages of sets, by clocks that may be wrong.
func TestNothingOlderThanItMayBe(t *testing.T) {
	day := 24 * time.Hour
	noon := func(d int) time.Time { return time.Date(2026, 1, d, 12, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		now    time.Time
		stored func(w *world) // what the store's clock did
		age    func(writer, set string) time.Duration
		want   []string
		says   string
	}{
		"new enough": {now: noon(6), age: func(string, string) time.Duration { return 2 * day }},
		"one set too old": {
			now: noon(6), age: func(string, string) time.Duration { return 26 * time.Hour },
			want: []string{"stale work " + below(manifestKey(4))}, says: `the newest snapshot of set "work", ann-20260105-030000Z, is 32h59m old by the writer's clock, more than 26h0m`,
		},
		"that set may be": {
			now: noon(6), age: func(_, set string) time.Duration {
				if set == "work" {
					return 0
				}
				return 26 * time.Hour
			},
		},
		"it claims tomorrow": {
			now: noon(5), age: func(string, string) time.Duration { return 26 * time.Hour },
			want: []string{"clock home " + below(manifestKey(5))}, says: "15h1m ahead",
		},
		"it claims a later time than it came at": {
			now: noon(8), age: func(string, string) time.Duration { return 100 * time.Hour },
			stored: func(w *world) { w.clock = noon(2); w.replace(manifestKey(5), w.get(manifestKey(5))) },
			want:   []string{"clock home " + below(manifestKey(5)), "stale home " + below(manifestKey(5))},
			says:   "is 6d0h old by the store's clock, more than 4d4h; it claims 2026-01-06T03:01:00Z itself",
		},
		"a copy of the store is new, what is in it is not": {
			now: noon(8), age: func(string, string) time.Duration { return 26 * time.Hour },
			stored: func(w *world) {
				w.clock = noon(8)
				w.replace(manifestKey(4), w.get(manifestKey(4)))
				w.replace(manifestKey(5), w.get(manifestKey(5)))
			},
			want: []string{"stale home " + below(manifestKey(5)), "stale work " + below(manifestKey(4))},
			says: "by the store's clock it came at 2026-01-08T12:00:00Z",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.stored != nil {
				c.stored(w)
			}
			_, found := w.audit(w, func(o *audit.Options) {
				o.Now = func() time.Time { return c.now }
				o.MaxAge = c.age
			})
			if diff := cmp.Diff(c.want, lines(found)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if text := fmt.Sprint(found); !strings.Contains(text, c.says) {
				t.Errorf("nothing says %q: %s", c.says, text)
			}
		})
	}
}

func TestAWriterWithoutAnySnapshotIsTooOld(t *testing.T) {
	w := &world{t: t}
	w.Store = newWorld(t).Store
	for seq := remote.Seq(1); seq <= 5; seq++ {
		w.remove(manifestKey(seq))
	}
	_, found := w.audit(w, func(o *audit.Options) { o.MaxAge = func(string, string) time.Duration { return time.Hour } })
	if diff := cmp.Diff([]string{"stale"}, lines(found)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
