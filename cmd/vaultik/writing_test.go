package main

import (
	"context"
	"errors"
	iofs "io/fs"
	"testing"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// Tags are shown to people, one a line.
func TestTagsThatNobodyCouldReadAreRefused(t *testing.T) {
	for tag, good := range map[string]bool{
		"before-update": true, "vor dem Umzug, 2. Versuch": true, "€": true,
		"": false, "a\nb": false, "a\x1b[1m": false, "a\x00": false, "\xff": false, "\u0085": false, `a"b`: false,
	} {
		if err := checkTags([]string{"fine", tag}); (err == nil) != good {
			t.Errorf("%q: %v", tag, err)
		}
	}
}

// answering is a store that says one thing about every object.
type answering struct {
	remote.Store
	err error
}

func (s answering) Stat(context.Context, string) (remote.Info, error) { return remote.Info{}, s.err }

// A store without the writer's first signing key is not the one that init set
// up; credentials that may only write cannot know, which is no reason to stop.
func TestOnlyTheStoreThatInitSetUpIsWrittenTo(t *testing.T) {
	down := errors.New("connection reset")
	conf, err := config.Parse("vaultik.toml", []byte("store = \"file:///srv/backup\"\nwriter = \"ann\""))
	if err != nil {
		t.Fatal(err)
	}
	w := &writing{conf: conf, url: *conf.Store}
	for _, c := range []struct{ answer, want error }{
		{nil, nil}, {remote.ErrDenied, nil}, {iofs.ErrNotExist, remote.ErrNoStore}, {down, down},
	} {
		if err := w.checkStore(t.Context(), answering{mem.New(nil), c.answer}); !errors.Is(err, c.want) {
			t.Errorf("the store says %v: %v, want %v", c.answer, err, c.want)
		}
	}
}
