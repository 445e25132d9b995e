package main

import (
	"fmt"
	"strings"
)

// configText is the config that init writes: every setting there is, with
// those that are not needed as comments.
func (s *setup) configText() string {
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
`, tomlString(s.url.String()), tomlString(s.writer), tomlString(s.where.State), tomlString(s.rootPublic.String()),
		tomlList(s.recipients), s.lockText(), s.setsText())
	return b.String()
}

// setsText is the config's sets: those that are brought back, or the default.
func (s *setup) setsText() string {
	sets := s.sets
	if len(sets) == 0 {
		sets = []revivedSet{{name: "default", paths: s.paths}}
	}
	var all []string
	for _, set := range sets {
		name := set.name
		if strings.Contains(name, ".") {
			name = tomlString(name)
		}
		text := "[sets." + name + "]\npaths = [\n" + tomlList(set.paths) + "]\n"
		if len(set.excludes) > 0 {
			text += "exclude = [\n" + tomlList(set.excludes) + "]\n"
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
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
