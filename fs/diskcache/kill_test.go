package diskcache_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs/diskcache"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// The test program started with this variable is another process on the same
// folder, which the variable names, and does what its argument says.
const childVariable = "VAULTIK_DISKCACHE_CHILD"

const (
	endlessly = "read endlessly" // the blob in random pieces, saying so, with a new Cache now and then
	full      = "on a full disk" // the blob once, with a limit to the size of files
)

func child() {
	s := mem.New(nil)
	body := storetest.Bytes(1, 8<<20)
	key := remote.BlobKey("ann", 1, remote.Sum(body))
	if err := s.Put(context.Background(), key, body); err != nil {
		panic(err)
	}
	o := diskcache.Options{Folder: os.Getenv(childVariable), Size: 6 << 20, Warn: func(err error) {
		// Where a disk takes seconds to write, the other one waits in vain.
		if !strings.Contains(err.Error(), "another process holds its lock") {
			fmt.Println(err)
		}
	}}
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	switch os.Args[1] {
	case endlessly:
		for {
			c := diskcache.New(s, o)
			for range 10 {
				off := rng.Int64N(7 << 20)
				got, err := storetest.Read(context.Background(), c, key, off, 1<<20)
				if err != nil || !bytes.Equal(got, body[off:off+1<<20]) {
					fmt.Println("wrong bytes", len(got), err)
				}
			}
			if err := c.Close(); err != nil {
				fmt.Println(err)
			}
			fmt.Println("read")
		}
	case full:
		signal.Ignore(unix.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1_000_000, Max: 1_000_000}); err != nil {
			panic(err)
		}
		c := diskcache.New(s, o)
		for range 2 {
			if got, err := storetest.Read(context.Background(), c, key, 0, 8<<20); err != nil || !bytes.Equal(got, body) {
				fmt.Println("wrong bytes", len(got), err)
			}
		}
		if err := c.Close(); err != nil {
			fmt.Println(err)
		}
	}
}

func command(t *testing.T, folder, what string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, what)
	cmd.Env = append(os.Environ(), childVariable+"="+folder)
	return cmd
}

func TestWhoeverIsKilledLeavesASoundFolder(t *testing.T) {
	s := mem.New(nil)
	key, body := blob(t, s, 1, 8<<20)
	for round := range 4 {
		folder := t.TempDir()
		var children []*exec.Cmd
		for range 2 {
			cmd := command(t, folder, endlessly)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for range 1 + round%3 {
				if !lines.Scan() || lines.Text() != "read" {
					t.Errorf("the other process said %q", lines.Text())
				}
			}
			children = append(children, cmd)
		}
		for _, cmd := range children {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("it was not killed")
			}
		}
		if got := size(t, folder); got > 6<<20+8 {
			t.Errorf("%d bytes", got)
		}
		once(t, s, folder, key, body, [2]int64{0, 8 << 20})
		if got := once(t, s, folder, key, body, [2]int64{0, 8 << 20}); got.Calls != 0 {
			t.Errorf("not everything was recorded: %+v", got)
		}
	}
}

func TestAFullDiskIsToldOnceAndKeepsWhatItHas(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 8<<20)
	out, err := command(t, folder, full).Output()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(out), "\n"); n != 1 || !strings.Contains(string(out), "what is fetched is not kept") {
		t.Errorf("%s", out)
	}
	info, err := os.Stat(fileOf(folder, key))
	if err != nil || info.Size() < 700_000 || info.Size() > 1_000_000 {
		t.Errorf("%v, %v", info, err)
	}
	if got := once(t, s, folder, key, body, [2]int64{0, 8 << 20}); got.Bytes != 8<<20-3*256<<10 {
		t.Errorf("%+v", got)
	}
}
