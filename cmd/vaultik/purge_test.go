package main

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
)

// claim TIME [SET [TAG…]]: the machine's writer signs a further snapshot, a
// copy of its newest one, that says it was finished then.
func claim(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: claim TIME [SET [TAG…]]")
	}
	at, err := time.Parse(time.RFC3339, args[0])
	ts.Check(err)
	conf, err := config.Read(ts.Getenv("VAULTIK_CONFIG"))
	ts.Check(err)
	writer := conf.Writer.String()
	store, err := dir.Open(conf.Store.Folder())
	ts.Check(err)
	text, err := os.ReadFile(filepath.Join(ts.Getenv("VAULTIK_STATE_DIR"), writer, state.SigningKeyFile))
	ts.Check(err)
	key, err := remote.ParseSigningKey(string(text))
	ts.Check(err)
	state, err := remote.ReadWriter(context.Background(), store, conf.RootKey.PublicKey, writer)
	ts.Check(err)
	newest := state.Snapshots[len(state.Snapshots)-1]
	m := *newest.Manifest
	m.Seq, m.Previous, m.Tags = m.Seq+1, &newest.Hash, nil
	m.Started, m.Finished = args[0], args[0]
	m.Snapshot = writer + "-" + at.Format("20060102-150405Z")
	if len(args) > 1 {
		m.Set, m.Tags = args[1], args[2:]
	}
	object, err := m.Encode()
	ts.Check(err)
	place := remote.ManifestKey(writer, m.Seq)
	ts.Check(store.Put(context.Background(), remote.SignatureKey(place), key.Sign(object, remote.ManifestComment(writer, m.Seq))))
	ts.Check(store.Put(context.Background(), place, object))
}

// certificate KIT WRITER N fenced: signer N may back up, but forget nothing.
// certificate KIT WRITER N maintainer FILE: signer N is a new maintainer's key,
// whose secret is written to FILE.
func certificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: certificate KIT WRITER N ROLE [FILE]")
	}
	k, err := kit.Parse(ts.ReadFile(args[0]))
	ts.Check(err)
	pub := ts.MkAbs(filepath.Join("store", args[1], "signers", args[2]+".pub"))
	c := remote.Certificate{Role: remote.RoleMaintainer, Writer: args[1]}
	if args[3] == "fenced" {
		c.Role, c.From, c.PurgeMaintainer = remote.RoleWriter, 1, true
		c.Key, err = remote.ParsePublicKey(ts.ReadFile(pub))
		ts.Check(err)
		ts.Check(os.Remove(pub + ".minisig"))
	} else {
		key, err := remote.GenerateSigningKey(rand.Reader)
		ts.Check(err)
		c.Key = key.Public()
		ts.Check(os.WriteFile(ts.MkAbs(args[4]), []byte(key.Text()), 0o600))
		ts.Check(os.WriteFile(pub, c.Key.File(), 0o644))
	}
	ts.Check(os.WriteFile(pub+".minisig", remote.SignCertificate(k.Root, c), 0o644))
}

// stored PATH AGE: the store took an object so long ago.
func stored(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: stored PATH AGE")
	}
	age, err := time.ParseDuration(strings.ReplaceAll(args[1], "d", "h"))
	ts.Check(err)
	if strings.HasSuffix(args[1], "d") {
		age *= 24
	}
	at := time.Now().Add(-age)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
}

// tombstone KEY WRITER RUN MANIFEST PREVIOUS: the secret key in a file signs that
// the manifest in a file, which follows that in another, is forgotten. It is put
// under the run's number, whatever is there.
func tombstone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: tombstone KEY WRITER RUN MANIFEST PREVIOUS")
	}
	key, err := remote.ParseSigningKey(ts.ReadFile(args[0]))
	ts.Check(err)
	run, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	previous := remote.Sum([]byte(ts.ReadFile(args[4])))
	stone := remote.NewTombstone(args[1], remote.Seq(run), remote.Sum([]byte(ts.ReadFile(args[3]))), &previous, time.Unix(0, 0))
	object, err := stone.Sign(key)
	ts.Check(err)
	at := ts.MkAbs(filepath.Join("store", remote.TombstoneKey(args[1], remote.Seq(run))))
	ts.Check(os.MkdirAll(filepath.Dir(at), 0o755))
	ts.Check(os.WriteFile(at, object, 0o644))
}
