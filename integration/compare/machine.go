package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what a reader needs to know of the machine to judge the figures.
type machine struct {
	cpu, kernel, system, fileSystem string
	cores                           int
	memory                          int64 // bytes
}

// thisMachine describes the machine, and the file system that work is on.
func thisMachine(work string) (machine, error) {
	m := machine{cores: runtime.NumCPU(), cpu: "unknown " + runtime.GOARCH, system: "Linux"}
	kib, err := procValue("/proc/meminfo", "MemTotal")
	if err != nil {
		return m, err
	}
	m.memory = kib << 10
	if name := wordsAfter("/proc/cpuinfo", "model name", ":"); name != "" { // not on every architecture
		m.cpu = name
	}
	if name := wordsAfter("/etc/os-release", "PRETTY_NAME", "="); name != "" {
		m.system = strings.Trim(name, `"`)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.kernel = unix.ByteSliceToString(u.Release[:])
	m.fileSystem, err = fileSystem(work)
	return m, err
}

// wordsAfter returns what stands behind the first "key separator" in a file,
// "" if there is none.
func wordsAfter(path, key, separator string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		k, v, ok := strings.Cut(line, separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileSystem is the type of the file system that path is on.
func fileSystem(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	best, found := "", ""
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		at := words[1]
		// The last of several at one place is the one that is seen.
		if (at == path || strings.HasPrefix(path, strings.TrimSuffix(at, "/")+"/")) && len(at) >= len(best) {
			best, found = at, words[2]
		}
	}
	return found, nil
}
