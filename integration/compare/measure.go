package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sample is what one run of a program cost.
type sample struct {
	wall, cpu time.Duration // cpu: user and system
	peak      int64         // resident bytes
	stored    int64         // bytes by which the store grew
	manifest  int64         // of those, in signed manifests, which only vaultik has
	noise     float64       // share of the machine's CPU that others used meanwhile
}

// tolerable is the noise above which a run does not count. The kernel's own
// work for a run, such as writing back its pages, is within it.
const tolerable = 0.10

func (s sample) quiet() bool { return s.noise <= tolerable }

// measure runs a command to its end.
func measure(cmd *exec.Cmd) (sample, error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &said
	return measureAll(func() ([]*exec.Cmd, time.Duration, error) {
		start := time.Now()
		err := cmd.Run()
		return []*exec.Cmd{cmd}, time.Since(start), explained(cmd, err, said.Bytes())
	})
}

// measureAll adds up what the processes that run returns have used until they
// ended. The peak is the first one's.
func measureAll(run func() ([]*exec.Cmd, time.Duration, error)) (s sample, err error) {
	// What earlier runs left to be written must not be written during this one.
	unix.Sync()
	before, err := busy()
	if err != nil {
		return sample{}, err
	}
	cmds, wall, err := run()
	if err != nil {
		return sample{}, err
	}
	after, err := busy()
	if err != nil {
		return sample{}, err
	}
	s.wall = wall
	for i, cmd := range cmds {
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return sample{}, errors.New("this system does not tell what a process used")
		}
		s.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if i == 0 {
			s.peak = usage.Maxrss << 10
		}
	}
	// The kernel counts in hundredths of a second on each core: below that
	// nothing can be told.
	const grain = 50 * time.Millisecond
	if others := after - before - s.cpu - grain; others > 0 {
		s.noise = others.Seconds() / (wall.Seconds() * float64(runtime.NumCPU()))
	}
	return s, nil
}

// busy is the time that all cores together have not been idle since boot,
// time stolen by other virtual machines included.
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("what the machine is doing: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	words := strings.Fields(line)
	if len(words) < 9 || words[0] != "cpu" {
		return 0, fmt.Errorf("what the machine is doing: /proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user nice system … irq softirq steal
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("what the machine is doing: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil
}

// leastPeak is the peak memory below which none can be measured: a child
// begins in its parent's memory, and the kernel counts that as the child's.
func leastPeak() (int64, error) {
	kib, err := procValue("/proc/self/status", "VmHWM")
	return kib << 10, err
}

// procValue reads the number behind "name:" in a file of /proc.
func procValue(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if words := strings.Fields(value); strings.TrimSpace(key) == name && len(words) > 0 {
			return strconv.ParseInt(words[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// sizes sums up the files of a store, and those of them that are manifests.
func sizes(store string) (all, manifests int64, err error) {
	err = filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all += info.Size()
		if strings.HasPrefix(d.Name(), "manifest.json.zst") {
			manifests += info.Size()
		}
		return nil
	})
	return all, manifests, err
}

// dropCaches makes the kernel forget the files, folders and inodes it knows.
func dropCaches() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil {
		return fmt.Errorf("drop the kernel's caches for -cold (only root can): %w", err)
	}
	return nil
}
