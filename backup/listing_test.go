package backup

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// pageNames is how many entries scan examines at once.
const pageNames = 4096

// A folder of more entries than are examined at once is compared and recorded
// like any other, across the borders of its pages.
func TestAFolderOfManyPagesIsLikeAnyOther(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of entries, slow with the race detector")
	}
	const n = 2*pageNames + 100
	tree := home()
	for i := range n {
		p := fmt.Sprintf("/home/large/%06d", i)
		if i%1000 == 0 {
			tree[p] = node{Inode: uint64(20_000 + i), Time: 1000}
			tree[p+"/inside"] = node{Content: "in a subfolder", Inode: uint64(50_000 + i), Time: 1000}
			continue
		}
		tree[p] = node{Content: fmt.Sprint("file ", i%10), Inode: uint64(20_000 + i), Time: 1000}
	}
	w := newWorld(t, tree)
	w.backup()
	want := shown()
	for p, n := range tree {
		if strings.HasPrefix(p, "/home/large/") {
			want[p] = n.Content
			if n.Content == "" {
				want[p] = "d"
			}
		}
	}
	want["/home/large"] = "d"
	same(t, "the first snapshot", want, w.shows(1))
	if w.source.largest > pageNames {
		t.Errorf("%d entries were examined at once", w.source.largest)
	}
	w.source.opened()
	w.backup()
	same(t, "files read without a change", []string(nil), w.source.opened())

	before := maps.Clone(want)
	var read []string
	for _, i := range []int{1, pageNames - 1, pageNames, 2*pageNames - 1, n - 1} { // edited at the borders
		p := fmt.Sprintf("/home/large/%06d", i)
		w.source.edit(func(n *node) { n.Content, n.Time = "edited", 2000 }, p)
		want[p] = "edited"
		read = append(read, p)
	}
	for _, i := range []int{2, pageNames + 1, n - 2} { // and removed
		p := fmt.Sprintf("/home/large/%06d", i)
		w.source.remove(p)
		delete(want, p)
	}
	w.source.remove("/home/large/000000") // a subfolder, and the first name
	delete(want, "/home/large/000000")
	delete(want, "/home/large/000000/inside")
	for _, name := range []string{"000000a", "999999"} { // and added
		p := "/home/large/" + name
		w.source.set(p, node{Content: "added", Time: 2000})
		want[p] = "added"
	}
	w.source.edit(func(n *node) { n.Content, n.Time = "edited", 2000 }, "/home/large/001000/inside")
	want["/home/large/001000/inside"] = "edited"
	read = append([]string{"/home/large/000000a"}, read...)
	read = append(read, "/home/large/001000/inside", "/home/large/999999")
	r := w.backup()
	same(t, "the third snapshot", want, w.shows(r.Seq))
	same(t, "files read", sorted(read), w.source.opened())
	same(t, "the first snapshot afterwards", before, w.shows(1))
}

// A large folder that is renamed is not read again either.
func TestALargeFolderIsFollowedWhenItMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of entries, slow with the race detector")
	}
	tree := home()
	tree["/home/large"] = node{Inode: 9000, Time: 1000}
	for i := range pageNames + 10 {
		tree[fmt.Sprintf("/home/large/%06d", i)] = node{Content: "x", Inode: uint64(20_000 + i), Time: 1000}
	}
	tree["/home/large/sub"] = node{Inode: 9001, Time: 1000}
	tree["/home/large/sub/one"] = node{Content: "y", Inode: 9002, Time: 1000}
	w := newWorld(t, tree)
	w.backup()
	for p, n := range tree {
		if rest, below := strings.CutPrefix(p, "/home/large"); below {
			w.source.set("/home/moved"+rest, n)
		}
	}
	w.source.remove("/home/large")
	w.source.opened()
	r := w.backup()
	same(t, "files read", []string(nil), w.source.opened())
	same(t, "a file of the snapshot", "y", w.shows(r.Seq)["/home/moved/sub/one"])
}
