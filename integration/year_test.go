package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/backup/localfs"
	vfs "git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/prune"
	"git.eeqj.de/sneak/vaultik/remote/retention"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// A year of five machines and two who purge and prune, all at once, over a
// store that fails now and then, with clocks that are years apart. In the end
// every snapshot that was not forgotten is what its machine had then, and
// nothing lies in the store that nobody needs. The short form takes 45 days.
func TestAYearOfFiveMachinesAndTwoPruners(t *testing.T) {
	days := scale(45, 365)
	y := newYear(t, 1)
	for day := range days {
		y.now = y.now.Add(24 * time.Hour)
		var actors errgroup.Group
		for _, m := range y.machines {
			actors.Go(func() error { return m.day(t.Context(), day) })
		}
		for i, every := range []int{4, 6} { // on some days both
			if day%every == 0 {
				actors.Go(func() error { return y.tidy(t.Context(), i) })
			}
		}
		if err := actors.Wait(); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
		y.net.deliver()
		if day%90 == 44 {
			y.compare()
		}
	}
	y.net.calm = true
	for _, m := range y.machines {
		m.run(t.Context(), "default") // which heals what it finds missing
	}
	must(t, y.tidy(t.Context(), 0))
	must(t, y.tidy(t.Context(), 0))
	y.compare()
	y.nothingIsLeft()
	t.Logf("%d snapshots made, %d runs failed, %d forgotten, %d objects and %d bytes freed, %d faults injected, %d requests repeated late, %d snapshots compared",
		y.made, y.failed, y.forgotten, y.freed.Objects, y.freed.Bytes, y.net.injected, y.net.repeated, y.compared)
	if y.made == 0 || y.failed == 0 || y.forgotten == 0 || y.freed.Objects == 0 || y.net.injected == 0 || y.compared == 0 {
		t.Error("nothing much has happened")
	}
}

// year is the store, its machines, and what has happened.
type year struct {
	t        *testing.T
	store    *mem.Store
	net      *network
	root     remote.SigningKey
	identity *age.X25519Identity
	now      time.Time // the true one; set between the days
	machines []*yearMachine

	mu                      sync.Mutex
	made, failed, forgotten int
	freed                   prune.Count
	compared                int
}

// yearMachine is one that is backed up.
type yearMachine struct {
	y      *year
	name   string
	random *rand.Rand
	clock  func(true time.Time) time.Time
	policy retention.Policy // of all its sets
	dir    string
	sets   []backup.Set
	config backup.Config
	had    map[remote.Seq]map[string]string // what its files were, by run
}

func newYear(t *testing.T, seed uint64) *year {
	y := &year{t: t, now: time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)}
	y.store = mem.New(func() time.Time { return y.now })
	y.net = &network{Store: y.store, random: rand.New(rand.NewPCG(seed, 0))}
	var err error
	y.root, err = remote.GenerateSigningKey(nil)
	must(t, err)
	y.identity, err = age.GenerateX25519Identity()
	must(t, err)
	byTime := retention.Policy{Daily: 7, Weekly: 4, Monthly: 12}
	jumps := rand.New(rand.NewPCG(seed, 99))
	for i, m := range []yearMachine{
		{name: "right", clock: func(now time.Time) time.Time { return now }, policy: byTime},
		{name: "slow", clock: func(now time.Time) time.Time { return now.AddDate(-1, 0, 0) }, policy: byTime},
		{name: "fast", clock: func(now time.Time) time.Time { return now.AddDate(1, 0, 0) }, policy: retention.Policy{Last: 9}},
		{name: "mad", clock: func(now time.Time) time.Time { return now.Add(time.Duration(jumps.IntN(20000)-10000) * time.Hour) }, policy: retention.Policy{Last: 5}},
		{name: "strict", clock: func(now time.Time) time.Time { return now }, policy: retention.Policy{Last: 3, Yearly: 2}},
	} {
		m.y, m.random, m.had = y, rand.New(rand.NewPCG(seed, uint64(i+1))), make(map[remote.Seq]map[string]string)
		m.setUp()
		y.machines = append(y.machines, &m)
	}
	return y
}

func (m *yearMachine) setUp() {
	t := m.y.t
	m.dir = t.TempDir()
	for _, set := range []string{"default", "mail"} {
		root := filepath.Join(m.dir, set)
		must(t, os.Mkdir(root, 0o700))
		m.sets = append(m.sets, backup.Set{Name: set, Roots: []string{root}})
		for range 20 {
			m.edit(root)
		}
	}
	signer, err := remote.GenerateSigningKey(nil)
	must(t, err)
	key := remote.SignerKey(m.name, 1)
	must(t, m.y.store.Put(t.Context(), key, signer.Public().File()))
	must(t, m.y.store.Put(t.Context(), remote.SignatureKey(key), remote.SignCertificate(m.y.root, remote.Certificate{
		N: 1, Key: signer.Public(), Role: remote.RoleWriter, Writer: m.name, From: 1,
	})))
	x, err := index.Create(t.Context(), filepath.Join(t.TempDir(), "index.db"), m.name, index.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, x.Close()) })
	source, err := localfs.New()
	must(t, err)
	m.config = backup.Config{
		Store: m.y.net, Index: x, Source: source, Writer: m.name, Hostname: m.name, Version: "test",
		Recipients: []string{m.y.identity.Recipient().String()}, Signer: signer, Root: m.y.root.Public(), CompactPerRun: 1 << 20,
		Chunking: metastore.Chunking{Algorithm: "fastcdc-v1.0.0", Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10, Secret: make([]byte, 32)},
		Level:    seal.Fastest, BlobSize: 32 << 10,
		Now: func() time.Time { return m.clock(m.y.now) },
	}
}

// edit changes one file below root: a new one, a new part, or none any more.
func (m *yearMachine) edit(root string) {
	at := filepath.Join(root, fmt.Sprintf("%02d", m.random.IntN(4)), fmt.Sprintf("file %02d", m.random.IntN(12)))
	must(m.y.t, os.MkdirAll(filepath.Dir(at), 0o700))
	old, _ := os.ReadFile(at)
	switch m.random.IntN(4) {
	case 0:
		os.Remove(at)
		return
	case 1:
		old = nil
	}
	part := make([]byte, 1+m.random.IntN(12<<10))
	for i := range part {
		part[i] = byte(m.random.Uint32())
	}
	where := m.random.IntN(len(old) + 1)
	must(m.y.t, os.WriteFile(at, slices.Concat(old[:where], part, old[where:]), 0o600))
}

// files are the regular files below the roots of a set.
func (m *yearMachine) files(set backup.Set) map[string]string {
	files := make(map[string]string)
	must(m.y.t, filepath.WalkDir(set.Roots[0], func(at string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var content []byte
			content, err = os.ReadFile(at)
			files[at] = string(content)
		}
		return err
	}))
	return files
}

// day is one backup, sometimes of the other set as well, sometimes of none.
func (m *yearMachine) day(ctx context.Context, day int) error {
	if m.random.IntN(10) == 0 {
		return nil // it was off
	}
	if err := m.run(ctx, "default"); err != nil {
		return err
	}
	if day%5 == 0 {
		return m.run(ctx, "mail")
	}
	return nil
}

// run is one backup after some edits. It may fail; the error is about what
// must not happen.
func (m *yearMachine) run(ctx context.Context, name string) error {
	set := m.sets[slices.IndexFunc(m.sets, func(s backup.Set) bool { return s.Name == name })]
	for range 1 + m.random.IntN(4) {
		m.edit(set.Roots[0])
	}
	files := m.files(set)
	before, err := m.config.Index.Status(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := m.y.net.mortal(ctx, m.random)
	defer cancel()
	m.config.Store = &mortalStore{Store: m.y.net, ctx: ctx}
	result, failed := backup.Run(ctx, m.config, set)
	after, err := m.config.Index.Status(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	m.y.mu.Lock()
	defer m.y.mu.Unlock()
	// A manifest that was intended may be there at once, or be put by the next run.
	last := after.LastSeq
	if after.Intent != nil {
		last = after.Intent.Seq
	}
	first := before.LastSeq
	if before.Intent != nil {
		first = before.Intent.Seq
	}
	for seq := first + 1; seq <= last; seq++ {
		m.had[remote.Seq(seq)] = files
		m.y.made++
	}
	switch {
	case failed != nil:
		m.y.failed++
		if errors.Is(failed, backup.ErrCloned) {
			return fmt.Errorf("%s: %w", m.name, failed)
		}
	case result.Incomplete():
		return fmt.Errorf("%s: a run is incomplete: %v", m.name, result.Problems)
	}
	return nil
}

// tidy purges and prunes everything, as far as the network lets it.
func (y *year) tidy(ctx context.Context, who int) error {
	random := rand.New(rand.NewPCG(uint64(y.now.Unix()), uint64(who)))
	ctx, cancel := y.net.mortal(ctx, random)
	defer cancel()
	store := &staleStore{Store: &mortalStore{Store: y.net, ctx: ctx}, net: y.net}
	for _, m := range y.machines {
		if err := y.purge(ctx, store, m); err != nil {
			return err
		}
		plan, err := prune.Look(ctx, prune.Options{Store: store, Root: y.root.Public()}, m.name)
		if err != nil || plan.Stopped != nil {
			continue
		}
		freed, _ := plan.Delete(ctx, store, nil)
		y.mu.Lock()
		y.freed = y.freed.Plus(freed.Total())
		y.mu.Unlock()
	}
	return nil
}

func (y *year) purge(ctx context.Context, store remote.Store, m *yearMachine) error {
	state, err := remote.ReadWriter(ctx, store, y.root.Public(), m.name)
	if err != nil || state.Stopped() != nil {
		return nil
	}
	chain, err := retention.Of(state, nil)
	if err != nil {
		return err
	}
	for _, set := range m.sets {
		verdicts, err := m.policy.Apply(chain, set.Name, y.now)
		if times := (*retention.TimesError)(nil); errors.As(err, &times) {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if err != nil {
			continue // no snapshot of the set yet
		}
		var goes []remote.Seq
		for _, v := range verdicts {
			if !v.Keep {
				goes = append(goes, v.Seq)
			}
		}
		stones, err := state.Tombstones(goes, y.now)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, stone := range stones {
			if remote.Forget(ctx, store, state.Signers, stone, m.config.Signer) == nil {
				y.mu.Lock()
				y.forgotten++
				y.mu.Unlock()
			}
		}
	}
	return nil
}

// compare reads every snapshot in the store and holds it against what its
// machine had.
func (y *year) compare() {
	t := y.t
	c, err := vfs.NewCatalog(vfs.CatalogOptions{Store: y.store, Root: y.root.Public(), Identities: []age.Identity{y.identity}, Cache: t.TempDir()})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	_, err = c.Refresh(t.Context())
	must(t, err)
	for _, err := range c.Problems() {
		t.Error(err)
	}
	for _, s := range c.Snapshots() {
		i := slices.IndexFunc(y.machines, func(m *yearMachine) bool { return m.name == s.Writer })
		tree, err := c.OpenSnapshot(t.Context(), s)
		if err != nil {
			t.Fatalf("%s: %v", s.ID, err)
		}
		got, err := readTree(t.Context(), tree)
		if err != nil {
			t.Fatalf("%s: %v", s.ID, err)
		}
		must(t, tree.Close())
		if diff := cmp.Diff(slices.Sorted(maps.Keys(y.machines[i].had[s.Seq])), slices.Sorted(maps.Keys(got))); diff != "" {
			t.Fatalf("%s: its files, - then, + in the snapshot:\n%s", s.ID, diff)
		}
		for at, content := range y.machines[i].had[s.Seq] {
			if got[at] != content {
				t.Fatalf("%s: %q has other content", s.ID, at)
			}
		}
		y.compared++
	}
}

// readTree returns the regular files of a snapshot with their contents.
func readTree(ctx context.Context, tree *vfs.Tree) (map[string]string, error) {
	files := make(map[string]string)
	var walk func(dir uint64, at string) error
	walk = func(dir uint64, at string) error {
		nodes, err := tree.ReadDir(ctx, dir, 0, 1000)
		for _, n := range nodes {
			below := path.Join(at, n.Name)
			switch n.Type {
			case metastore.Directory:
				if err := walk(n.Ino, below); err != nil {
					return err
				}
			case metastore.Regular:
				content := make([]byte, n.Size)
				if _, err := tree.ReadAt(ctx, n, content, 0); err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("%s: %w", below, err)
				}
				files[below] = string(content)
			}
		}
		return err
	}
	return files, walk(tree.Root(), "/")
}

// nothingIsLeft: after the last prune there is no garbage, and no tombstone
// whose manifest is still there.
func (y *year) nothingIsLeft() {
	for _, m := range y.machines {
		plan, err := prune.Look(y.t.Context(), prune.Options{Store: y.store, Root: y.root.Public()}, m.name)
		must(y.t, err)
		if plan.Stopped != nil || len(plan.Garbage) > 0 || plan.Stays.Newer.Objects > 0 || plan.Lost > 0 {
			y.t.Errorf("%s: stopped by %v, %d objects of garbage, %+v stay, %d are lost", m.name, plan.Stopped, len(plan.Garbage), plan.Stays, plan.Lost)
		}
	}
}

// network is between the machines and the store: one in a hundred calls fails,
// before or after it did its work, and some requests are repeated days later.
type network struct {
	remote.Store

	mu       sync.Mutex
	random   *rand.Rand
	calm     bool
	late     []request
	recent   []string // keys put since yesterday
	injected int
	repeated int
}

type request struct {
	key  string
	body []byte
}

var errNetwork = errors.New("the network failed")

// fault decides whether a call fails, and if so, whether it does its work.
func (n *network) fault() (fails, works bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.calm || n.random.IntN(100) > 0 {
		return false, true
	}
	n.injected++
	return true, n.random.IntN(2) == 0
}

func (n *network) Put(ctx context.Context, key string, body []byte) error {
	fails, works := n.fault()
	if works {
		if err := n.Store.Put(ctx, key, body); err != nil {
			return err
		}
		n.mu.Lock()
		n.recent = append(n.recent, key)
		if !n.calm && n.random.IntN(50) == 0 {
			n.late = append(n.late, request{key, slices.Clone(body)})
		}
		n.mu.Unlock()
	}
	if fails {
		return errNetwork
	}
	return nil
}

func (n *network) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	if fails, _ := n.fault(); fails {
		return nil, errNetwork
	}
	return n.Store.Get(ctx, key, off, length)
}

func (n *network) Stat(ctx context.Context, key string) (remote.Info, error) {
	if fails, _ := n.fault(); fails {
		return remote.Info{}, errNetwork
	}
	return n.Store.Stat(ctx, key)
}

func (n *network) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	if fails, _ := n.fault(); fails {
		return func(yield func(remote.Info, error) bool) { yield(remote.Info{}, errNetwork) }
	}
	return n.Store.List(ctx, prefix)
}

func (n *network) Delete(ctx context.Context, key string) error {
	fails, works := n.fault()
	if works {
		if err := n.Store.Delete(ctx, key); err != nil {
			return err
		}
	}
	if fails {
		return errNetwork
	}
	return nil
}

// deliver ends a day: some of the requests that were held back arrive.
func (n *network) deliver() {
	var kept []request
	for _, r := range n.late {
		if n.random.IntN(10) > 0 {
			kept = append(kept, r)
			continue
		}
		_ = n.Store.Put(context.Background(), r.key, r.body) // it may well be there
		n.repeated++
	}
	n.late, n.recent = kept, nil
}

// mortal returns a context that may end at any call: one actor in ten is
// killed.
func (n *network) mortal(ctx context.Context, random *rand.Rand) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if n.calm || random.IntN(10) > 0 {
		return ctx, cancel
	}
	return context.WithValue(ctx, doomed{}, &doom{left: random.IntN(40), kill: cancel}), cancel
}

type doomed struct{}

type doom struct {
	mu   sync.Mutex
	left int
	kill func()
}

// mortalStore is the store as one actor sees it, until it is killed.
type mortalStore struct {
	remote.Store
	ctx context.Context
}

func (s *mortalStore) step() error {
	if d, ok := s.ctx.Value(doomed{}).(*doom); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.left--; d.left < 0 {
			d.kill()
		}
	}
	return s.ctx.Err()
}

func (s *mortalStore) Put(ctx context.Context, key string, body []byte) error {
	if err := s.step(); err != nil {
		return err
	}
	return errors.Join(s.Store.Put(ctx, key, body), s.ctx.Err())
}

func (s *mortalStore) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := s.step(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, off, n)
}

func (s *mortalStore) Delete(ctx context.Context, key string) error {
	if err := s.step(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// staleStore hides, in every fourth listing, some of what was put today.
type staleStore struct {
	remote.Store
	net *network
}

func (s *staleStore) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	s.net.mu.Lock()
	var hidden []string
	if n := len(s.net.recent); n > 0 && !s.net.calm && s.net.random.IntN(4) == 0 {
		hidden = slices.Clone(s.net.recent[s.net.random.IntN(n):])
		s.net.injected++
	}
	s.net.mu.Unlock()
	return func(yield func(remote.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix) {
			if err == nil && strings.HasPrefix(info.Key, prefix) && slices.Contains(hidden, info.Key) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
