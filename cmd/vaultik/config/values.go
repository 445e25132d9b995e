package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Values of the config file. Each checks itself when it is read; go-toml asks
// only types that are no strings to do so.
type (
	Name      struct{ string }           // of a writer or a set
	Folder    struct{ string }           // an absolute path, "~/" being HOME
	Recipient struct{ string }           // an age recipient
	ByteCount int64                      // "100MiB"
	PerRun    int64                      // in bytes: "1GiB", or "0" for nothing
	Level     seal.Level                 // of compression
	RootKey   struct{ remote.PublicKey } // zero: none is trusted
)

// String is the name.
func (n Name) String() string { return n.string }

// String is the path.
func (f Folder) String() string { return f.string }

// UnmarshalText reads what remote.CheckName accepts.
func (n *Name) UnmarshalText(text []byte) error {
	*n = Name{string(text)}
	return remote.CheckName(string(text))
}

// UnmarshalText reads an absolute path, or one that begins with "~/".
func (f *Folder) UnmarshalText(text []byte) error {
	path := string(text)
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%q is not an absolute path", text)
	}
	*f = Folder{filepath.Clean(path)}
	return nil
}

// UnmarshalText reads what CheckRecipient accepts.
func (r *Recipient) UnmarshalText(text []byte) error {
	*r = Recipient{string(text)}
	return CheckRecipient(string(text))
}

// CheckRecipient says what is wrong with one, and which it is. A post-quantum
// recipient has some 2,000 characters, which nobody wants to read; and what is
// none may be a secret.
func CheckRecipient(text string) error {
	_, err := seal.ParseRecipients([]string{text})
	if err == nil {
		return nil
	}
	if !strings.HasPrefix(text, "age1") {
		return errors.Unwrap(err) // without its number, of one
	}
	const shown = 20
	return fmt.Errorf("recipient %q… is not a whole age public key: a character is wrong or missing", text[:min(len(text), shown)])
}

// UnmarshalText is ParseSize.
func (b *ByteCount) UnmarshalText(text []byte) (err error) {
	*b, err = ParseSize(string(text))
	return err
}

// UnmarshalText is ParseSize, or reads "0".
func (p *PerRun) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*p = 0
		return nil
	}
	n, err := ParseSize(string(text))
	*p = PerRun(n)
	return err
}

// ParseSize reads "1000B", "10kB" (1,000s) or "10KiB" (1,024s). A bare number
// is refused: who writes 400 seldom means bytes.
func ParseSize(s string) (ByteCount, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<62 || !strings.ContainsAny(s, "bBkKmMgGtTpP") {
		return 0, fmt.Errorf("%q is not a size; write it with its unit, for example 500kB, 100MiB or 4GiB", s)
	}
	return ByteCount(n), nil
}

// UnmarshalText is seal.ParseLevel.
func (l *Level) UnmarshalText(text []byte) error {
	v, err := seal.ParseLevel(string(text))
	*l = Level(v)
	return err
}

// UnmarshalText is remote.ParsePublicKey.
func (k *RootKey) UnmarshalText(text []byte) (err error) {
	k.PublicKey, err = remote.ParsePublicKey(string(text))
	return err
}

// ByteRate is in bytes per second: "5MiB/s". 0 is no limit.
type ByteRate int64

// leastRate is one at which a backup still gets somewhere, and servers do not
// take its connections for idle ones.
const leastRate = 1000

// UnmarshalText is ParseRate.
func (r *ByteRate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

// ParseRate reads what ParseSize does, with or without "/s" behind it. Bits
// are refused: people who write 5Mb/s often mean them.
func ParseRate(s string) (ByteRate, error) {
	const write = "write for example 500kB/s or 5MiB/s, in bytes per second"
	text := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "/s"))
	n, err := ParseSize(text)
	switch {
	case strings.HasSuffix(text, "b") || strings.HasSuffix(text, "bit"):
		return 0, fmt.Errorf("%q could be in bits; %s", s, write)
	case err != nil:
		return 0, fmt.Errorf("%q is not a rate; %s", s, write)
	case n < leastRate:
		return 0, fmt.Errorf("%q is too slow to get anywhere, the least is 1kB/s; %s", s, write)
	}
	return ByteRate(n), nil
}
