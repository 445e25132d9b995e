package main

import (
	"os"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/fs/fusefs"
)

func TestAnOwnerIsTheOneWhoMountsOrIsNamed(t *testing.T) {
	me := fusefs.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	for value, want := range map[string]fusefs.Owner{
		"true": me, "root": {UID: 0, GID: 0}, "0": {UID: 0, GID: 0}, "4000001:4000002": {UID: 4000001, GID: 4000002},
		"root:7": {UID: 0, GID: 7}, "root:root": {UID: 0, GID: 0},
	} {
		var o ownerFlag
		if err := o.Set(value); err != nil || *o.Owner != want {
			t.Errorf("%s: %v, %v", value, o.Owner, err)
		}
	}
	for value, says := range map[string]string{
		"no such user": "no user", "4000001": "no user", "-1:0": "no user", "root:no such group": "no group", "4294967295:0": "no group", "": "no user",
	} {
		if err := new(ownerFlag).Set(value); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// The option stands alone, or with numbers behind it.
func TestAnOwnerIsNotMistakenForAFolder(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"mount --owner DIR", "vaultik mount --owner -- DIR"},
		{"mount DIR --owner", "vaultik mount --owner -- DIR"},
		{"mount --owner 1000:100 DIR", "vaultik mount --owner=1000:100 -- DIR"},
		{"mount latest DIR --owner=ann", "vaultik mount --owner=ann -- latest DIR"},
	} {
		cli := newBench(t).cli()
		got, err := arrange(append([]string{"vaultik"}, strings.Fields(c.in)...), cli.Flags, cli.Commands)
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%s: got %q, %v", c.in, got, err)
		}
	}
}
