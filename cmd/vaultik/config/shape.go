package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"git.eeqj.de/sneak/vaultik/remote"
)

// shape is what decoding a config cannot tell: the order of its sets, and
// where a value is of the wrong kind, in the words of the file's author.
type shape struct {
	path string // of the file
	toml unstable.Parser
	sets []string // in the order of their appearance
}

// kinds are those of the values, for all settings.
var kinds = map[string]unstable.Kind{
	"store": unstable.String, "writer": unstable.String, "state_dir": unstable.String, "root_key": unstable.String,
	"recipients": unstable.Array, "identity_command": unstable.String, "compression": unstable.String,
	"cache_size": unstable.String, "object_lock": unstable.String, "object_lock_mode": unstable.String,

	"paths": unstable.Array, "exclude": unstable.Array, "exclude_file": unstable.Array, "exclude_if_present": unstable.Array,
	"exclude_larger_than": unstable.String, "exclude_caches": unstable.Bool, "one_file_system": unstable.Bool,

	"keep_tag": unstable.Array, "set_aside": unstable.Array,
}

var kindNames = map[unstable.Kind]string{
	unstable.String: "a string in quotes", unstable.Array: `a list of strings, ["…", "…"]`, unstable.Bool: "true or false",
}

// readShape walks through a config. Whatever is no TOML it leaves to the
// decoder.
func readShape(path string, text []byte) (*shape, error) {
	s := &shape{path: path}
	s.toml.Reset(text)
	var table []string
	for s.toml.NextExpression() {
		e := s.toml.Expression()
		var err error
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, err = s.key(nil, e)
		case unstable.KeyValue:
			err = s.value(table, e)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// key is the whole key of a table or a value that stands in table.
func (s *shape) key(table []string, e *unstable.Node) ([]string, error) {
	key := slices.Clone(table)
	for it := e.Key(); it.Next(); {
		n := it.Node()
		key = append(key, string(n.Data))
		if len(key) != 2 || key[0] != "sets" || slices.Contains(s.sets, key[1]) {
			continue
		}
		if err := remote.CheckName(key[1]); err != nil {
			return nil, s.errorAt(n, "set %w", err)
		}
		s.sets = append(s.sets, key[1])
	}
	return key, nil
}

func (s *shape) value(table []string, e *unstable.Node) error {
	key, err := s.key(table, e)
	if err != nil {
		return err
	}
	v := e.Value()
	at := e.Key()
	at.Next()
	known, own := topKeys, key // in its table
	if key[0] == "sets" {
		known, own = setKeys, key[min(2, len(key)):]
	}
	if len(own) > 1 && own[0] == "retention" {
		known, own = retentionKeys, own[1:]
	}
	if len(own) == 0 || len(own) == 1 && own[0] == "retention" {
		if v.Kind != unstable.InlineTable {
			example := strings.Join(key, ".")
			if len(own) == 0 {
				example = "sets.home"
			}
			return s.errorAt(at.Node(), "%s must be a table, as [%s] begins one", strings.Join(key, "."), example)
		}
		for it := v.Children(); it.Next(); {
			if err := s.value(key, it.Node()); err != nil {
				return err
			}
		}
		return nil
	}
	if len(own) != 1 || !slices.Contains(known, own[0]) {
		return nil // the decoder's business
	}
	want, ok := kinds[own[0]]
	good := v.Kind == want
	if want == unstable.Array && good {
		for it := v.Children(); it.Next(); {
			good = good && it.Node().Kind == unstable.String
		}
	}
	if !ok || good {
		return nil
	}
	return s.errorAt(at.Node(), "%s must be %s", strings.Join(key, "."), kindNames[want])
}

func (s *shape) errorAt(n *unstable.Node, format string, args ...any) error {
	at := s.toml.Shape(n.Raw).Start
	return fmt.Errorf("%s:%d:%d: %w", s.path, at.Line, at.Column, fmt.Errorf(format, args...))
}
