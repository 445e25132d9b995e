package spool

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Paths is a list of paths below the target folder, in a file without a name. It
// is used by one goroutine.
type Paths struct {
	Dir   string // where the file is; "" is the system's folder for temporary ones
	count int64
	file  *os.File
	out   *bufio.Writer
}

// Count is how many paths there are.
func (p *Paths) Count() int64 { return p.count }

// Add appends a path, and whether it is a folder's.
func (p *Paths) Add(at string, dir bool) (err error) {
	if p.file == nil {
		if p.file, err = unnamed(p.Dir); err != nil {
			return err
		}
		p.out = bufio.NewWriter(p.file)
	}
	p.count++
	kind := byte('-')
	if dir {
		kind = 'd'
	}
	_ = p.out.WriteByte(kind) // Flush tells
	_, _ = p.out.WriteString(at)
	return p.out.WriteByte(0)
}

// Each calls f with every path in the order of adding; there must be one. Its
// first error ends it.
func (p *Paths) Each(f func(at string, dir bool) error) error {
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	in := bufio.NewReader(p.file)
	for {
		line, err := in.ReadBytes(0)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the plan: %w", err)
		}
		line = bytes.TrimSuffix(line, []byte{0})
		if err := f(string(line[1:]), line[0] == 'd'); err != nil {
			return err
		}
	}
}

// Close drops the paths.
func (p *Paths) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}
