package main

import (
	"maps"
	"slices"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// writerLine is what JSON says of a writer.
type writerLine struct {
	Type       string          `json:"message_type"`
	Writer     string          `json:"writer"`
	Trusted    bool            `json:"trusted"` // the root key certified a signer of it
	Signers    []signing.Line  `json:"signers"`
	Snapshots  int             `json:"snapshots"`
	Forgotten  int             `json:"forgotten"`
	Latest     string          `json:"latest"`   // id of the newest snapshot, "" if there is none
	Finished   string          `json:"finished"` // when
	Sets       []setLine       `json:"sets"`
	Recipients []recipientLine `json:"recipients"`
	Objects    int64           `json:"objects"`
	Bytes      int64           `json:"bytes"`
	Kinds      kindsLine       `json:"kinds"`
	Problems   []string        `json:"problems"`
}

// setLine is a set's snapshots.
type setLine struct {
	Set       string `json:"set"`
	Snapshots int    `json:"snapshots"`
	Latest    string `json:"latest"` // id of the newest one
	Finished  string `json:"finished"`
	Files     int64  `json:"files"` // of the newest one
	Bytes     int64  `json:"bytes"`
}

// recipientLine is who can read how many of the snapshots.
type recipientLine struct {
	Fingerprint string   `json:"fingerprint"`
	Snapshots   int      `json:"snapshots"`
	Latest      bool     `json:"latest"` // of the newest snapshot of every set
	Yours       []string `json:"yours"`  // "config": one of its recipients; "identity": the one given
}

// kindsLine is what lies in the store by kind.
type kindsLine struct {
	Blobs    kindLine `json:"blobs"`
	Metadata kindLine `json:"metadata"` // dumps, lists, manifests and their signatures
	Other    kindLine `json:"other"`    // signers, revocations, tombstones, and what is not vaultik's
}

type kindLine struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (k *kindsLine) add(info remote.Info) {
	of := &k.Other
	key, err := remote.ParseKey(info.Key)
	if err == nil {
		switch key.Kind {
		case remote.KindBlob:
			of = &k.Blobs
		case remote.KindDump, remote.KindList, remote.KindManifest:
			of = &k.Metadata
		}
	}
	of.Objects++
	of.Bytes += info.Size
}

func (l look) line(yours map[string][]string) writerLine {
	k := l.kinds
	line := writerLine{
		Type: "writer", Writer: l.state.Writer, Trusted: len(l.state.Signers.Certificates) > 0, Signers: l.signers,
		Snapshots: len(l.state.Snapshots), Forgotten: len(l.state.Forgotten), Sets: []setLine{}, Recipients: []recipientLine{},
		Objects: k.Blobs.Objects + k.Metadata.Objects + k.Other.Objects, Bytes: k.Blobs.Bytes + k.Metadata.Bytes + k.Other.Bytes,
		Kinds: k, Problems: []string{},
	}
	for _, p := range l.problems {
		line.Problems = append(line.Problems, p.Error())
	}
	sets, reads, newest := make(map[string]*setLine), make(map[string]int), make(map[string]*remote.Manifest)
	for _, s := range l.state.Snapshots { // by seq
		m := s.Manifest
		set := sets[m.Set]
		if set == nil {
			set = &setLine{Set: m.Set}
			sets[m.Set] = set
		}
		set.Snapshots++
		set.Latest, set.Finished, set.Files, set.Bytes = ui.Quote(m.Snapshot), m.Finished, m.Totals.Files, m.Totals.Bytes
		newest[m.Set] = m
		line.Latest, line.Finished = set.Latest, m.Finished
		for _, print := range m.Recipients {
			reads[print]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		line.Sets = append(line.Sets, *sets[name])
	}
	for _, print := range slices.Sorted(maps.Keys(reads)) {
		p := recipientLine{Fingerprint: print, Snapshots: reads[print], Latest: true, Yours: append([]string{}, yours[print]...)}
		for _, m := range newest {
			p.Latest = p.Latest && slices.Contains(m.Recipients, print)
		}
		line.Recipients = append(line.Recipients, p)
	}
	return line
}
