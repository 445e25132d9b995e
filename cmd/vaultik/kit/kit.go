// Package kit writes and reads the recovery kit, the one text with which a store
// can be opened on a machine that knows nothing, and finds the identity that opens
// snapshots, which most often is the kit's.
//
// A kit that was ever written is read for ever, and is an identity file for age as
// well. The package neither keeps secrets on this machine nor tries them on a
// store.
package kit

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// title begins every kit; the version follows.
const title = "# vaultik recovery kit, version "

// version is the version of kits that this program writes and reads.
const version = "1"

// Kit is the recovery kit: one printable text file with all that is needed to
// restore. For age it is an identity file, because everything but the
// identity stands behind "#". Its facts are lines "# Name: value"; key files
// are written as the lines of the file behind "# " each.
type Kit struct {
	Store      string            // address
	Writer     string            // who it was made for
	Made       time.Time         // UTC, whole seconds
	By         string            // version of vaultik
	Root       remote.SigningKey // the root key
	Identity   string            // "AGE-SECRET-KEY-…"; "" if the recipients' identities are kept elsewhere
	Recipients []string          // to whom the writer encrypts, the identity's own included
}

// Text is the kit as it is written.
func (k *Kit) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(strings.TrimRight("# "+fmt.Sprintf(format, args...), " ") + "\n")
	}
	b.WriteString(title + version + "\n")
	line("")
	line("KEEP THIS SECRET AND KEEP IT SAFE. Whoever has it can read every snapshot in")
	line("the store and can sign in its owner's name. Without it nobody can ever read")
	line("them. Keep it in two places, printed or on a stick, on none of the machines")
	line("that are backed up.")
	line("")
	line("Store:  %s", k.Store)
	line("Writer: %s", k.Writer)
	line("Made:   %s", k.Made.UTC().Format(time.RFC3339))
	line("By:     vaultik %s", k.By)
	line("")
	line("TO RESTORE with vaultik, on any Linux machine, this file being kit.txt")
	line("(and with the store's credentials in the environment, if it has any):")
	line("")
	line("  vaultik snapshot list --identity kit.txt")
	line("  mkdir /tmp/vaultik")
	line("  vaultik mount --background --identity kit.txt SNAPSHOT /tmp/vaultik")
	line("  cp -a /tmp/vaultik/home /where/you/want/it")
	line("  fusermount3 -u /tmp/vaultik")
	line("")
	line("SNAPSHOT is one that the list names. If the store is elsewhere by now, add")
	line("--store URL to the first and the third line.")
	line("")
	line("TO RESTORE without vaultik: copy the store into a folder, with any S3 client.")
	line("Below WRITER/metadata/ each run has a manifest.json.zst, signed with the key")
	line("in WRITER/signers/, which in turn is signed with the root key below (check")
	line("with minisign -V). It names the dumps (*.db.zst.age) in which the files' names")
	line("and places are:")
	line("")
	line("  age -d -i kit.txt DUMP.db.zst.age | zstd -d | sqlite3 -safe -bail dump.db")
	line("")
	line("Contents are in WRITER/blobs/; \"age -d -i kit.txt BLOB | zstd -d\" prints a")
	line("blob's contents back to back, the dump says what is where. docs/recover.sh in")
	line("vaultik's source does all that; docs/RECOVERY.md explains it. Identities that")
	line("begin with AGE-SECRET-KEY-PQ need age 1.3 or newer.")
	line("")
	line("TO SET A MACHINE UP AGAIN that has lost its config, keys or index, so that its")
	line("backups go on: \"vaultik init --from-kit kit.txt\" there.")
	line("")
	line("TO LET ANOTHER MACHINE use the same keys: \"vaultik init\" there with --root and")
	line("the recipients below, then \"vaultik key certify\" where this file is.")
	line("")
	line("ROOT KEY, PUBLIC: a minisign public key file, without the \"# \" in front")
	for _, l := range lines(string(k.Root.Public().File())) {
		line("%s", l)
	}
	line("")
	line("ROOT KEY, SECRET: a minisign secret key file without password, likewise")
	for _, l := range lines(k.Root.Text()) {
		line("%s", l)
	}
	line("")
	if k.Identity != "" {
		line("AGE IDENTITY: the next line opens every snapshot")
		b.WriteString(k.Identity + "\n")
		line("")
	} else {
		line("NO AGE IDENTITY: this store is opened by the identities of the recipients")
		line("below, which are kept elsewhere.")
		line("")
	}
	line("Not needed to restore, so nobody has to type it in from paper:")
	for _, r := range k.Recipients {
		line("Recipient: %s", r)
	}
	return b.String()
}

// factLine is a line that says a fact.
var factLine = regexp.MustCompile(`^# (Store|Writer|Made|By|Recipient): +(\S.*)$`)

// Parse reads what text wrote, also after the comments between the facts
// were changed or lost, or line ends became those of another system.
func Parse(text string) (*Kit, error) {
	all := lines(text)
	if len(all) == 0 || !strings.HasPrefix(all[0], title) {
		return nil, errors.New("this is not a recovery kit")
	}
	if v := strings.TrimPrefix(all[0], title); v != version {
		return nil, fmt.Errorf("%w: a recovery kit of version %q; this vaultik reads version %s", remote.ErrUnsupported, v, version)
	}
	k := &Kit{}
	var public remote.PublicKey
	var secret, open bool
	for i, l := range all {
		at := func(err error) error { return fmt.Errorf("line %d: %w", i+1, err) }
		word := strings.TrimPrefix(l, "# ")
		fact := factLine.FindStringSubmatch(l)
		switch {
		case fact != nil:
			if err := k.fact(fact[1], fact[2]); err != nil {
				return nil, at(err)
			}
		case strings.HasPrefix(l, "AGE-SECRET-KEY-"):
			if k.Identity != "" {
				return nil, at(errors.New("a second age identity"))
			}
			k.Identity = l
		case l != "" && !strings.HasPrefix(l, "#"):
			return nil, at(errors.New("neither a comment nor an age identity"))
		case !strings.HasPrefix(word, "RW") || strings.ContainsAny(word, " \t"):
			// A comment.
		case len(word) == 56:
			if open {
				return nil, at(errors.New("a second public key"))
			}
			var err error
			if public, err = remote.ParsePublicKey(word); err != nil {
				return nil, at(err)
			}
			open = true
		default:
			if secret {
				return nil, at(errors.New("a second secret key"))
			}
			var err error
			if k.Root, err = remote.ParseSigningKey(word); err != nil {
				return nil, at(err)
			}
			secret = true
		}
	}
	switch {
	case !secret || !open:
		return nil, errors.New("the kit lacks the root key; both its public and its secret line must be there")
	case k.Root.Public().String() != public.String():
		return nil, errors.New("the root key's secret line does not belong to its public line; one of them was changed")
	case k.Store == "" || k.Writer == "":
		return nil, errors.New("the kit lacks its Store or its Writer line")
	}
	return k, nil
}

func (k *Kit) fact(what, value string) (err error) {
	switch what {
	case "Store":
		if k.Store != "" {
			return errors.New("a second store")
		}
		k.Store = value
		_, err = stores.ParseURL(value)
	case "Writer":
		if k.Writer != "" {
			return errors.New("a second writer")
		}
		k.Writer = value
		err = remote.CheckName(value)
	case "Made":
		k.Made, err = time.Parse(time.RFC3339, value)
	case "By":
		k.By = strings.TrimSpace(strings.TrimPrefix(value, "vaultik"))
	case "Recipient":
		k.Recipients = append(k.Recipients, value)
	}
	return err
}

// lines splits a text, trailing white space of each line removed.
func lines(text string) []string {
	text = strings.TrimRight(text, "\r\n")
	if text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	for i := range all {
		all[i] = strings.TrimRight(all[i], " \t\r")
	}
	return all
}

// Read reads the kit in the file at path.
func Read(path string) (*Kit, error) {
	if path == "" {
		return nil, errors.New("no kit given; add --kit FILE, the recovery kit, which holds the root key")
	}
	text, err := state.ReadFile(path, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read the recovery kit: %w", err)
	}
	k, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("recovery kit %q: %w", path, err)
	}
	return k, nil
}
