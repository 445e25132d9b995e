package fs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
)

func TestSnapshotsAreFoundByName(t *testing.T) {
	snapshot := func(writer string, seq remote.Seq, set, time string) Snapshot {
		return Snapshot{Writer: writer, Seq: seq, Set: set, ID: writer + "-" + time}
	}
	single := []Snapshot{
		snapshot("ann", 1, "home", "20260101-000000Z"), snapshot("ann", 2, "home", "20260102-000000Z"), snapshot("ann", 3, "home", "20260102-000000Z-2"),
	}
	sets := append(single[:3:3], snapshot("ann", 4, "etc", "20260103-000000Z"))
	writers := append(sets[:4:4], snapshot("bob", 1, "home", "20260201-000000Z"), snapshot("bob", 2, "home", "20260202-000000Z"))
	// A writer may sign any id, also one that looks like another writer's.
	clash := append(single[:3:3], Snapshot{Writer: "eve", Seq: 9, Set: "home", ID: "ann-20260101-000000Z"})

	for _, c := range []struct {
		name, own string
		all       []Snapshot
		want      string // WRITER/seq, or what the error lists
		err       error
	}{
		{"latest", "", single, "ann/3", nil},
		{"home@latest", "", single, "ann/3", nil},
		{"ann/latest", "", single, "ann/3", nil},
		{"ann-20260101", "", single, "ann/1", nil},
		{"ann-20260102-000000Z", "", single, "ann/2", nil}, // exact, though another begins so
		{"ann-20260102", "", single, "ann-20260102-000000Z, ann-20260102-000000Z-2", ErrAmbiguous},
		{"ann-2027", "", single, "the last ones are ann-20260101-000000Z", ErrNoSnapshot},
		{"", "", single, "the last ones are", ErrNoSnapshot},
		{"work@latest", "", single, "choose one of home@latest", ErrNoSnapshot},
		{"bob/latest", "", single, "choose one of ann/latest", ErrNoSnapshot},
		{"latest", "ann", nil, "holds no snapshot", ErrNoSnapshot},

		{"latest", "ann", sets, "choose one of etc@latest, home@latest", ErrAmbiguous},
		{"etc@latest", "", sets, "ann/4", nil},

		{"latest", "", writers, "choose one of ann/etc@latest, ann/home@latest, bob/home@latest", ErrAmbiguous},
		{"latest", "bob", writers, "bob/2", nil},
		{"latest", "carl", writers, `writer, "carl", has none; choose one of ann/etc@latest, ann/home@latest, bob/home@latest`, ErrNoSnapshot},
		{"latest", "carl", single, "choose one of ann/home@latest", ErrNoSnapshot}, // another machine's is not this one's
		{"home@latest", "carl", single, "choose one of ann/home@latest", ErrNoSnapshot},
		{"ann-20260101", "carl", single, "ann/1", nil},
		{"bob/latest", "ann", writers, "bob/2", nil},
		{"home@latest", "", writers, "choose one of ann/home@latest, bob/home@latest", ErrAmbiguous},
		{"home@latest", "ann", writers, "ann/3", nil},
		{"etc@latest", "bob", writers, `no set "etc"; choose one of home@latest`, ErrNoSnapshot}, // though ann has it
		{"etc@latest", "", writers, "ann/4", nil},                                                // nobody else has it
		{"mail@latest", "", writers, "choose one of ann/etc@latest, ann/home@latest, bob/home@latest", ErrNoSnapshot},

		{"eve/latest", "", single, "eve is refused", remote.ErrNotTrusted},
		{"eve/home@latest", "ann", nil, "eve is refused", remote.ErrNotTrusted},
		{"latest", "eve", single, "eve is refused", remote.ErrNotTrusted},
		{"ann/home@latest", "bob", writers, "ann/3", nil},
		{"ann/latest", "", writers, "choose one of ann/etc@latest, ann/home@latest", ErrAmbiguous},
		{"bob-2026020", "", writers, "bob-20260201-000000Z, bob-20260202-000000Z", ErrAmbiguous},

		{"ann-20260101-000000Z", "", clash, "ann/ann-20260101-000000Z, eve/ann-20260101-000000Z", ErrAmbiguous},
		{"eve/ann-20260101", "", clash, "eve/9", nil},
	} {
		refused := map[string]error{"eve": fmt.Errorf("%w: eve is refused", remote.ErrNotTrusted)}
		got, err := resolve(c.all, refused, c.name, c.own)
		if c.err == nil && (err != nil || got.Writer+"/"+strings.TrimLeft(got.Seq.String(), "0") != c.want) {
			t.Errorf("%q on %q: got %s/%s, %v; want %s", c.name, c.own, got.Writer, got.Seq, err, c.want)
		}
		if c.err != nil && (!errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q on %q: got %v; want %v with %q", c.name, c.own, err, c.err, c.want)
		}
	}
}
