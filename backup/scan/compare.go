package scan

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// compare looks up what the last run recorded in this folder, of the names
// behind after up to upTo, finds out which entries look the same, and closes
// the ones that are gone.
func (s *Scanner) compare(ctx context.Context, f folder, children []child, after, upTo string) error {
	versions, err := s.Run.Children(ctx, f.path, after, upTo)
	if err != nil {
		return fmt.Errorf("look up %q in the index: %w", f.where, err)
	}
	i := 0
	for n := range versions {
		v := &versions[n]
		for i < len(children) && children[i].entry.Name < v.Name {
			i++
		}
		if i == len(children) || children[i].entry.Name != v.Name {
			if err := s.close(ctx, v.Path); err != nil {
				return err
			}
			continue
		}
		children[i].resembles(v)
	}
	return nil
}

// resembles notes the version that is open so far, and whether the entry still
// looks as it did then.
func (c *child) resembles(v *index.Version) {
	c.version = v
	c.same = !v.Recheck && c.entry.Err == nil && source.Unchanged(c.entry.Stat, v.File.Stat) && v.File.Role == c.role &&
		(c.entry.Type == metastore.Directory || v.File.State == c.state) // a folder's state shows in its mark
}

// goneKept bounds the paths that wait to be closed: 8 bytes each.
const goneKept = 1 << 20

// close notes that there is nothing at path any more.
func (s *Scanner) close(ctx context.Context, path int64) error {
	if s.gone = append(s.gone, path); len(s.gone) < goneKept {
		return nil
	}
	return s.closeGone(ctx)
}

func (s *Scanner) closeGone(ctx context.Context) error {
	for _, path := range s.gone {
		n, err := s.Run.Close(ctx, path)
		s.Removed.Add(int64(n))
		if err != nil {
			return err
		}
	}
	s.gone = s.gone[:0]
	return nil
}

// mark condenses all that would show a change in a folder into 128 bits: its
// own state, and of every entry what resembles compares.
type mark struct {
	hash hash.Hash
	buf  []byte
}

func newMark(state metastore.State) *mark {
	return &mark{sha256.New(), append([]byte(state), 0)}
}

func (m *mark) add(c *child) {
	e := &c.entry
	buf := append(m.buf, e.Name...)
	buf = append(buf, 0, byte(e.Type))
	buf = append(append(append(buf, c.role...), 0), c.state...)
	buf = append(buf, 0)
	for _, n := range [...]int64{e.Size, e.MTime.Sec, int64(e.MTime.Nsec), e.CTime.Sec, int64(e.CTime.Nsec), int64(e.Inode)} {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(n))
	}
	if len(buf) > 16<<10 {
		m.hash.Write(buf)
		buf = buf[:0]
	}
	m.buf = buf
}

func (m *mark) sum() [16]byte {
	m.hash.Write(m.buf)
	return [16]byte(m.hash.Sum(nil)[:16])
}
