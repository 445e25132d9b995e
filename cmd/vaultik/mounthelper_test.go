package main

import (
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/daemon"
)

// What mount(8) asks for is the same as a command line.
func TestACallOfMountIsACommandLine(t *testing.T) {
	for _, c := range []struct{ call, want string }{
		{"vaultik vaultik /mnt -o rw,dev,suid", "vaultik --quiet mount --background -- /mnt"},
		{"vaultik file:///srv/backup /mnt -o ro", "vaultik --store=file:///srv/backup --quiet mount --background -- /mnt"},
		{"vaultik none /mnt -o snapshot=home@latest,identity=/root/kit.txt", "vaultik --quiet mount --identity=/root/kit.txt --background -- home@latest /mnt"},
		{"/sbin/mount.fuse.vaultik vaultik /mnt -v -o noexec,nosuid,nodev,user=ann -t fuse.vaultik", "vaultik mount --noexec --background -- /mnt"},
		{"/sbin/mount.vaultik s3://b/p?endpoint=https://h&path_style=on /mnt", "vaultik --store=s3://b/p?endpoint=https://h&path_style=on --quiet mount --background -- /mnt"},
		{"mount.vaultik vaultik /mnt -o allow_other,refresh=5m -n -o timeout=10s,nonempty", "vaultik --quiet mount --allow-other --refresh=5m --timeout=10s --nonempty --background -- /mnt"},
		{"vaultik vaultik /mnt -o uid=1000,gid=100,_netdev,nofail,x-systemd.automount", "vaultik --quiet mount --owner=1000:100 --background -- /mnt"},
		{"vaultik vaultik /mnt -o owner,uid=ann", "vaultik --quiet mount --owner=ann --background -- /mnt"},
		{"vaultik vaultik /mnt -o owner=1000,allow-other,config=/etc/v.toml,root=RWQ=", "vaultik --quiet mount --owner=1000 --allow-other --config=/etc/v.toml --root=RWQ= --background -- /mnt"},
		{"mount.vaultik vaultik /mnt -s -o nonsense=1", "vaultik --quiet mount --background -- /mnt"},
	} {
		cli := newBench(t).cli()
		h, err := helperCalled(strings.Fields(c.call), cli.Commands)
		if h == nil || err != nil {
			t.Errorf("%s: not recognised, %v", c.call, err)
			continue
		}
		got, err := h.arguments(cli.Flags, named(cli.Commands, "mount"))
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%s:\n got %q, %v\nwant %q", c.call, got, err, c.want)
		}
	}
}

func TestOrdinaryCommandLinesAreNoCallsOfMount(t *testing.T) {
	for _, line := range []string{
		"vaultik", "vaultik --help", "vaultik mount latest /mnt", "vaultik mount /mnt -o allow_other", "vaultik backup home -o x",
		"vaultik --quiet mount -o /mnt", "/usr/bin/vaultik nonsense",
	} {
		if h, err := helperCalled(strings.Fields(line), newBench(t).cli().Commands); h != nil || err != nil {
			t.Errorf("%s: %+v, %v", line, h, err)
		}
	}
}

// mount(8) has exit codes of its own: 1 for a wrong call, 32 for a mount that
// failed.
func TestWhatMountAsksForIsRefusedWithItsExitCodes(t *testing.T) {
	for _, c := range []struct {
		call string
		code int
		says string
	}{
		{"mount.vaultik /mnt", 1, "usage: mount.vaultik SOURCE DIR"},
		{"mount.vaultik vaultik /mnt -N 5", 1, "namespace"},
		{"mount.vaultik vaultik /mnt -o", 1, "-o needs a value"},
		{"mount.vaultik vaultik /mnt -x", 1, "no option -x"},
		{"vaultik vaultik /mnt -o rw,alow_other", 1, "no mount option alow_other; did you mean allow_other?"},
		{"vaultik vaultik /mnt -o rw,background", 1, "no mount option background"},
		{"vaultik vaultik /mnt -o remount,rw", 1, "unmount it, then mount it again"},
		{"vaultik vaultik /mnt -o gid=7", 1, "needs a uid="},
		{"mount.vaultik vaultik /nowhere -f", 0, ""},
		{"mount.vaultik vaultik /nowhere -o refresh=-1s", 32, "--refresh -1s"},
	} {
		b := newBench(t)
		b.vars[daemon.Variable] = "1" // else this process would be started again
		if code := b.run(t.Context(), strings.Fields(c.call)); code != c.code || !strings.Contains(b.err.String(), c.says) {
			t.Errorf("%s: exit code %d, want %d\n%s", c.call, code, c.code, b.err.String())
		}
	}
}
