package config

import (
	"fmt"
	"strings"
)

// Template is a config to be written. Every text in it is taken as it is.
type Template struct {
	Store      string
	Writer     string
	StateDir   string
	RootKey    string
	Recipients []string
	LockTime   LockTime
	LockMode   LockMode
	Sets       []TemplateSet
}

// TemplateSet is a set of it.
type TemplateSet struct {
	Name     string
	Paths    []string
	Excludes []string
}

// Text is the file: every setting there is, with those that are not needed as
// comments.
func (t Template) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Config of vaultik on this machine. It holds no secret key.

# Where backups go: file:///folder or s3://bucket/prefix?endpoint=https://host.
# Credentials of an S3 store come from AWS_ACCESS_KEY_ID and
# AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the machine's role.
store = %s

# This machine's name in the store.
writer = %s

# Signing key and index, in a folder of the writer's name below this one.
state_dir = %s

# The root key's public part. Only snapshots whose signer it certified count.
root_key = %s

# Whose identities can open the snapshots: public keys only. After a change
# everything is uploaded anew, so that every recipient can read all of it; see
# reseal_per_run.
recipients = [
%s]

# How a command that reads contents gets the identity if it is not given one,
# run by /bin/sh. Only for machines that may restore.
#identity_command = "pass show vaultik-recovery-kit"

# fastest, default, better, max or off.
#compression = "default"

# The rate that all uploads of a run share, in bytes per second.
#limit_upload = "5MiB/s"

# Lock every object against deletion for so long from its upload on, in a bucket
# that was made with object lock. With compliance, the default, nobody can lift
# a lock, with governance those can who have a special permission. Locks end:
# run "vaultik store renew" every week.
%s

# How much a run reads again and uploads anew, so that blobs of which purged
# snapshots leave less than a quarter in use can be pruned; "0" is nothing.
#compact_per_run = "1GiB"

# After a change of recipients, how much of what is stored a run reads again and
# uploads anew. Until all is done, new recipients cannot read all of a snapshot,
# nor do without the former ones. Without this the next run does everything.
#reseal_per_run = "10GiB"

# How much of what was fetched, still encrypted, commands that read contents
# keep in the cache folder. Without this 4GiB, and nothing of a store in a
# folder.
#cache_size = "20GiB"

# What "vaultik snapshot purge" keeps; a [sets.NAME.retention] takes its place
# for one set. See "vaultik snapshot purge --help".
#[retention]
#keep_daily = 7
#keep_weekly = 5
#keep_monthly = 12
#keep_tag = ["keep"]
#min_age = "30d"

# "vaultik backup" backs up every set, "vaultik backup NAME" one of them.
%s
# What to leave out, in the syntax of gitignore: "*.o" anywhere, "cache/"
# folders anywhere, "/tmp" at the top of each path, a whole path from "/" if it
# leads into one of the paths.
#exclude = ["*.tmp", "node_modules/"]
#exclude_file = ["/etc/vaultik/exclude"]

# Leave out what is in folders that hold an entry of such a name; the folder
# itself and that entry stay in.
#exclude_if_present = [".nobackup"]

# Leave out larger files.
#exclude_larger_than = "4GiB"

# Leave out what is in folders marked by a CACHEDIR.TAG.
#exclude_caches = true

# Leave out what is mounted below the paths.
#one_file_system = true
`, tomlString(t.Store), tomlString(t.Writer), tomlString(t.StateDir), tomlString(t.RootKey),
		tomlList(t.Recipients), t.lockText(), t.setsText())
	return b.String()
}

func (t Template) setsText() string {
	var all []string
	for _, set := range t.Sets {
		name := set.Name
		if strings.Contains(name, ".") {
			name = tomlString(name)
		}
		text := "[sets." + name + "]\npaths = [\n" + tomlList(set.Paths) + "]\n"
		if len(set.Excludes) > 0 {
			text += "exclude = [\n" + tomlList(set.Excludes) + "]\n"
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

func (t Template) lockText() string {
	length, mode := "#object_lock = \"30d\"", "#object_lock_mode = \"compliance\""
	if !t.LockTime.IsZero() {
		length = "object_lock = " + tomlString(t.LockTime.String())
	}
	if t.LockMode.LockMode != "" {
		mode = "object_lock_mode = " + tomlString(strings.ToLower(string(t.LockMode.LockMode)))
	}
	return length + "\n" + mode
}

func tomlList(items []string) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString("  " + tomlString(item) + ",\n")
	}
	return b.String()
}

// tomlString is s as a basic string of TOML.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u` + fmt.Sprintf("%04X", r))
		default:
			b.WriteString(string(r))
		}
	}
	return b.String() + `"`
}
