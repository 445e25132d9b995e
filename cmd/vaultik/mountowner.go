package main

import (
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strconv"
	"strings"

	"git.eeqj.de/sneak/vaultik/fs/fusefs"
)

// ownerFlag is the value of --owner: nothing, which means the one who mounts,
// or a user with or without a group.
type ownerFlag struct{ *fusefs.Owner }

// IsBoolFlag lets the option stand without a value.
func (*ownerFlag) IsBoolFlag() bool { return true }

// numbers are a value that is not mistaken for a folder or a snapshot, so that
// it may stand behind the option without a "=".
var numbers = regexp.MustCompile(`^[0-9]+(:[0-9]+)?$`)

func (*ownerFlag) takes(word string) bool { return numbers.MatchString(word) }

// String implements flag.Value.
func (o *ownerFlag) String() string {
	if o == nil || o.Owner == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", o.UID, o.GID)
}

// Set implements flag.Value.
func (o *ownerFlag) Set(value string) error {
	switch value {
	case "true": // no value
		o.Owner = &fusefs.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		return nil
	case "false":
		o.Owner = nil
		return nil
	}
	name, group, both := strings.Cut(value, ":")
	u, err := user.Lookup(name)
	if number, no := strconv.ParseUint(name, 10, 32); err != nil && no == nil {
		if u, err = user.LookupId(name); err != nil && both {
			u, err = &user.User{Uid: strconv.FormatUint(number, 10)}, nil
		}
	}
	if err != nil {
		return fmt.Errorf("no user %q on this machine; numbers may be any, as in 1000:1000", name)
	}
	gid := u.Gid
	if both {
		gid = group
		if g, err := user.LookupGroup(group); err == nil {
			gid = g.Gid
		}
	}
	owner := fusefs.Owner{}
	for _, id := range []struct {
		to   *uint32
		text string
	}{{&owner.UID, u.Uid}, {&owner.GID, gid}} {
		n, err := strconv.ParseUint(id.text, 10, 32)
		if err != nil || n == 1<<32-1 { // which means "leave it as it is"
			return fmt.Errorf("no group %q on this machine; numbers may be any, as in 1000:1000", id.text)
		}
		*id.to = uint32(n)
	}
	o.Owner = &owner
	return nil
}
