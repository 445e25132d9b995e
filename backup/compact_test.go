package backup

import (
	"fmt"
	"maps"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
)

// churn edits some of many files every day, keeps a week, and returns the
// bytes of blobs that are left at the end and those of all contents that the
// kept snapshots show.
func churn(t *testing.T, days int, compact int64) (stored, needed int64) {
	const files, edits, size = 150, 10, 2_000
	random := newNoise(7)
	tree, show := map[string]node{}, map[string]string{"/home": "d"}
	for i := range files {
		p := fmt.Sprintf("/home/%03d", i)
		show[p] = random.text(size)
		tree[p] = node{Content: show[p], Time: 1000, Inode: uint64(100 + i)}
	}
	w := newWorld(t, tree)
	w.certify()
	w.config.CompactPerRun = compact
	want := map[remote.Seq]map[string]string{}
	for day := range days {
		for range edits {
			p := fmt.Sprintf("/home/%03d", random.IntN(files))
			show[p] = random.text(size)
			w.source.edit(func(n *node) { n.Content, n.Time = show[p], int64(2000+day) }, p)
		}
		r := w.backup()
		if r.Incomplete() || len(r.Problems) > 0 {
			t.Fatalf("day %d: %v", day, r.Problems)
		}
		want[r.Seq] = maps.Clone(show)
		if kept := seqs(w); len(kept) > 7 {
			w.purge(kept[0])
			delete(want, kept[0])
		}
		w.prune()
	}
	contents := map[string]bool{}
	for seq, show := range want {
		same(t, fmt.Sprint("snapshot ", seq), show, w.shows(seq))
		for _, content := range show {
			contents[content] = true
		}
	}
	for content := range contents {
		needed += int64(len(content))
	}
	return w.blobBytes(), needed
}

// However long the history, what is stored stays near what is needed.
func TestMostlyDeadBlobsDoNotPileUp(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred runs")
	}
	const days = 100
	with, needed := churn(t, days, 1<<20)
	without, _ := churn(t, days, 0)
	t.Logf("%d days: %d bytes needed, %d stored, %d without compaction", days, needed, with, without)
	if with > 2*needed {
		t.Errorf("%d bytes are stored for %d", with, needed)
	}
	if with >= without*9/10 {
		t.Errorf("compaction saves nothing: %d bytes with, %d without", with, without)
	}
}

// What cannot be read again stays where it is: no file is the worse for it.
func TestCompactionNeedsNothingOfTheSource(t *testing.T) {
	for name, spoil := range map[string]func(*node){
		"unreadable":          func(n *node) { n.DenyRead = errInjected },
		"not to be opened":    func(n *node) { n.DenyOpen = errInjected },
		"changed in its back": func(n *node) { n.Content = "S" + n.Content[1:] },
		"readable":            func(*node) {},
	} {
		t.Run(name, func(t *testing.T) {
			random := newNoise(3)
			tree := map[string]node{"/home/stays": {Content: "stays " + random.text(1000), Time: 1000}}
			for i := range 9 {
				tree[fmt.Sprint("/home/goes", i)] = node{Content: random.text(1000), Time: 1000}
			}
			want := map[string]string{"/home": "d", "/home/stays": tree["/home/stays"].Content}
			w := newWorld(t, tree)
			w.certify()
			w.config.CompactPerRun = 1 << 20
			w.backup()
			for i := range 9 {
				w.source.remove(fmt.Sprint("/home/goes", i))
			}
			w.backup()
			w.purge(1)
			w.source.edit(spoil, "/home/stays")
			var retired int
			var moved int64
			for range 3 {
				r := w.backup()
				if r.Incomplete() || len(r.Problems) > 0 {
					t.Errorf("problems: %v", r.Problems)
				}
				retired, moved = retired+r.Retired, moved+r.Moved
				w.prune()
				same(t, "the snapshot", want, w.shows(r.Seq))
			}
			w.purge(2) // which shows what is in the blob
			w.prune()
			if retired != 1 {
				t.Errorf("%d blobs were retired", retired)
			}
			if read := name == "readable"; read != (moved == 1006) || read != (w.blobBytes() < 5_000) {
				t.Errorf("%d bytes were moved, %d are stored", moved, w.blobBytes())
			}
		})
	}
}

// After a change of recipients each run uploads some of the data anew, says how
// much is left, and in the end the new identity is all it takes.
func TestAChangeOfRecipientsMayTakeSeveralRuns(t *testing.T) {
	tree := map[string]node{}
	random := newNoise(5)
	for i := range 20 {
		tree[fmt.Sprintf("/home/%02d", i)] = node{Content: random.text(10_000), Time: 1000}
	}
	w := newWorld(t, map[string]node{"/home/empty": {Type: metastore.Regular, Time: 1000}})
	w.certify()
	var want map[string]string
	for i := range 5 { // blobs
		for p, n := range tree {
			if int(p[len(p)-1]-'0')%5 == i {
				w.source.set(p, n)
			}
		}
		want = w.shows(w.backup().Seq)
	}
	second, err := age.GenerateX25519Identity()
	check(t, err)
	w.config.Recipients = []string{second.Recipient().String()}
	w.config.ResealPerRun = 90_000
	var former []int64
	for {
		if len(former) == 2 {
			w.source.set("/home/new", node{Content: "for the new recipient", Time: 2000})
			want["/home/new"] = "for the new recipient"
		}
		r := w.backup()
		former = append(former, r.Former)
		if r.Moved > 90_000 || len(r.Problems) > 0 {
			t.Errorf("a run moved %d bytes: %v", r.Moved, r.Problems)
		}
		if r.Former == 0 {
			break
		}
		if len(former) > 1 && r.Former >= former[len(former)-2] || len(former) > 10 {
			t.Fatalf("bytes that only the former recipient can read: %v", former)
		}
	}
	if len(former) < 3 {
		t.Errorf("bytes that only the former recipient can read: %v", former)
	}
	w.identity = second
	newest := seqs(w)[len(seqs(w))-1]
	same(t, "the newest snapshot", want, w.shows(newest))
	w.purge(seqs(w)[:len(seqs(w))-1]...)
	w.prune()
	same(t, "the newest snapshot alone", want, w.shows(newest))
	r := w.backup()
	if r.Moved != 0 || r.Read != 0 {
		t.Errorf("the run after moved %d bytes and read %d", r.Moved, r.Read)
	}
	same(t, "the one after", maps.Clone(want), w.shows(r.Seq))
}
