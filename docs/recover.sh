#!/bin/sh
# Restores a vaultik snapshot without vaultik: with minisign, age, zstd,
# sqlite3 -safe, coreutils, sed, awk and setfattr. docs/RECOVERY.md explains.
#
#   recover.sh KIT STORE WRITER SEQ|latest DEST
#
# KIT    the recovery kit        STORE  a copy of the store, as a folder
# WRITER a folder of the store   SEQ    number of the run   DEST  a new folder
#
# Everything is verified on the way: root key > signer > manifest > dump and
# blobs. Needs room for the content twice: in DEST, and with one blob in TMPDIR
# (/tmp). As root it also restores owners, devices and security attributes.
set -eu
export LC_ALL=C
[ $# = 5 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
kit=$1 store=${2%/} writer=${3%/} seq=$4 dest=$5
say() { echo "recover.sh: $*" >&2; }
die() { say "$*"; exit 1; }
umask 077 && tmp=$(mktemp -d) && tmp=$(cd "$tmp" && pwd)
trap 'rm -rf "$tmp"; rmdir "${new-}" 2>/dev/null || :' EXIT && trap 'exit 130' INT TERM
mkdir "$dest" || die "DEST has to be a new folder in one that exists"
new=$(cd "$dest" && pwd) # which goes again if nothing is restored
echo x | age -e -i "$kit" 2>/dev/null | age -d -i "$kit" >/dev/null 2>&1 || die "age cannot use the identity in $kit (AGE-SECRET-KEY-PQ- needs age 1.3)"

# A key of which only the kit says that it is trusted.
root=$(sed -n 's/^#.*[^A-Za-z0-9+/]\(RW[A-Za-z0-9+/]\{54\}\)$/\1/p' "$kit" | head -n 1)
[ -n "$root" ] || die "$kit names no root key"
runs=$(find "$store/$writer/metadata" -name manifest.json.zst | sed 's|.*/0*\([0-9]*\)/[^/]*$|\1|' | sort -n)
[ -n "$runs" ] || die "no snapshot of $writer in $store"
[ "$seq" != latest ] || { seq=$(echo "$runs" | tail -n 1); say "the newest snapshot there is run $seq; whether newer ones were removed cannot be told from here"; }
run=$(echo "$seq" | sed 's/^0*//')
echo "$runs" | grep -qxF -e "$run" || die "no run $seq of $writer in $store; the last ones are $(echo "$runs" | tail -n 9 | paste -sd' ' -)"
meta=$store/$writer/metadata/$(printf %010d "$run")

# The signer that the root key certified for this run: the one with the
# greatest "from" that is not above it, of equals one that is not revoked, then
# the newest; anybody can copy one to a greater number, and copies do not count.
# A revocation is about a key and says up to which run it holds.
signer='' best=0 last='' known=''
for n in $(find "$store/$writer/signers" -name '*.pub' | sed -n 's|.*/\([0-9]*\)\.pub$|\1|p' | sort -n); do
	pub=$store/$writer/signers/$n.pub through=''
	said=$(minisign -VHQ -P "$root" -m "$pub" -x "$pub.minisig" 2>/dev/null) || { say "not certified: $pub"; continue; }
	case $said in "vaultik-signer v1 role=writer writer=$writer from="*) from=${said##* from=} from=${from%% *} ;; *) continue ;; esac
	[ "$from" -le "$run" ] || continue
	said="$said $(sed -n 2p "$pub")"
	case $known in *"$said;"*) continue ;; esac
	known="$known$said;"
	for r in "$store/$writer/signers/"*.revoked; do
		grep -qxF "key $(sed -n 2p "$pub")" "$r" 2>/dev/null || continue
		minisign -VHq -P "$root" -m "$r" -x "$r.minisig" || { say "not the root key's: $r"; continue; }
		grep -qxF "writer $writer" "$r" || { say "of another writer: $r"; continue; }
		t=$(sed -n 's/^through 0*\([0-9].*\)/\1/p' "$r") && t=${t:-0}
		if [ -z "$through" ] || [ "${t%% *}" -lt "${through%% *}" ]; then through=$t; fi
	done
	rank=$((from * 2 + 1))
	if [ -n "$through" ] && [ "$run" -gt "${through%% *}" ]; then rank=$((from * 2)); fi
	if [ "$rank" -ge "$best" ]; then signer=$pub best=$rank last=$through; fi
done
[ -n "$signer" ] || die "no signer of $writer is certified by the root key for run $seq"
[ $((best % 2)) = 1 ] || die "$signer is revoked: its manifest of run $seq is not trusted"
# Of a revoked key's earlier manifests those hold to which the chain leads from there.
if [ -n "$last" ]; then
	n=${last%% *} want=${last#* }
	while [ "$n" -gt "$run" ]; do
		m=$store/$writer/metadata/$(printf %010d "$n")/manifest.json.zst
		[ -e "$m" ] || { say "$signer is revoked, and the manifest of run $n is gone: whether that of run $run is one that the honest machine made is not checked here"; break; }
		echo "$want  $m" | sha256sum -c --quiet - || die "$signer is revoked, and $m is not the manifest that the revocation names or leads to"
		want=$(zstd -dqc "$m" | sed 's/.*"seq":[0-9]*,"previous":"\([0-9a-f]*\)".*/\1/') n=$((n - 1))
	done
	[ "$n" -gt "$run" ] || echo "$want  $meta/manifest.json.zst" | sha256sum -c --quiet - || die "$signer is revoked, and this is not the manifest that the revocation names or leads to"
fi
minisign -VHq -p "$signer" -m "$meta/manifest.json.zst" -x "$meta/manifest.json.zst.minisig" || die "the manifest's signature is wrong"
zstd -dqc "$meta/manifest.json.zst" >"$tmp/manifest"
case $(cat "$tmp/manifest") in
'{"format":1,"requires":[],"type":"manifest","writer":"'"$writer"'","seq":'"$run"',"'*) ;;
*) die "not a manifest of format 1 for run $seq of $writer" ;;
esac

# The dump, part by part, each checked against its signed hash.
sed -n 's/.*"dumps":\[\([^]]*\)\].*/\1/p' "$tmp/manifest" | sed 's/},{/\n/g' |
	sed -n 's/.*"seq":\([0-9]*\),"sha256":"\([0-9a-f]*\)".*/\1 \2/p' >"$tmp/parts"
[ -s "$tmp/parts" ] || die "the manifest names no dump"
while read -r n hash; do
	part=$store/$writer/metadata/$(printf %010d "$n")/$hash.db.zst.age
	echo "$hash  $part" | sha256sum -c --quiet - || die "damaged: $part"
	age -d -i "$kit" "$part" >"$tmp/part.zst" || die "cannot decrypt $part"
	zstd -dqc --memory=32MB "$tmp/part.zst" >>"$tmp/dump.sql" || die "cannot decompress $part"
done <"$tmp/parts"
sqlite3 -safe -bail "$tmp/db" <"$tmp/dump.sql" || die "cannot load the dump"
sqlite3 -safe -bail "$tmp/db" "CREATE INDEX a ON file_chunks(content); CREATE INDEX b ON files(volume, inode); CREATE INDEX c ON xattrs(file)"
rm "$tmp/dump.sql" "$tmp/part.zst"
ask() { sqlite3 -safe -bail -readonly "$tmp/db" "$1"; }
rows=$(for t in volumes paths files xattrs contents file_chunks chunks blobs blob_chunks; do
	ask "SELECT '\"$t\":' || count(*) FROM $t"
done | paste -sd, -)
grep -qF "\"rows\":{$rows}" "$tmp/manifest" || die "the dump has not the signed number of rows"
say "snapshot $(ask "SELECT id FROM snapshots"): $(ask "SELECT count(*) FROM files") entries"
mkdir "$tmp/content"

# Contents, in the order of the blobs: each blob is read once, each frame
# decompressed once. Files of the content are made sparse, then filled.
ask "SELECT id, (SELECT coalesce(max(offset + length), 0) FROM file_chunks WHERE content = contents.id) FROM contents" |
	tr '|' ' ' | while read -r id size; do truncate -s "$size" "$tmp/content/$id"; done
blob='' frame=''
ask "SELECT printf('%010d/%s', b.seq, lower(hex(b.hash))), l.frame_offset, l.frame_length, l.offset, l.length, f.content, f.offset
	FROM file_chunks f JOIN blob_chunks l ON l.chunk = f.chunk JOIN blobs b ON b.id = l.blob ORDER BY b.id, 2, 4" |
	tr '|' ' ' | while read -r key at len off n id to; do
	if [ "$key" != "$blob" ]; then
		blob=$key frame='' file=$store/$writer/blobs/$key
		if echo "${key#*/}  $file" | sha256sum -c --quiet - && age -d -i "$kit" "$file" >"$tmp/stream"; then ok=1; else
			ok=0
			say "LOST: blob $key"
		fi
	fi
	if [ "$ok" = 1 ] && [ "$frame" != "$at" ]; then
		dd if="$tmp/stream" bs=1M iflag=skip_bytes,count_bytes skip="$at" count="$len" status=none | zstd -dqc >"$tmp/frame"
		frame=$at
	fi
	if [ "$ok" = 1 ]; then
		dd if="$tmp/frame" of="$tmp/content/$id" bs=1M iflag=skip_bytes,count_bytes oflag=seek_bytes \
			skip="$off" count="$n" seek="$to" conv=notrunc status=none
	else echo "$id" >>"$tmp/lost"; fi
done
rm -f "$tmp/stream" "$tmp/frame"
ask "SELECT content FROM file_chunks WHERE chunk IS NOT NULL AND chunk NOT IN (SELECT chunk FROM blob_chunks)" >>"$tmp/lost"

# The tree, parents first. Names may hold any byte: they travel in hexadecimal
# and become arguments by way of printf, the x keeping trailing newlines.
unhex() {
	out=$(printf %b "$(printf %s "$1" | sed 's/../& /g' | awk -v d=0123456789ABCDEF '{ for (i = 1; i <= NF; i++)
		printf "\\0%03o", (index(d, substr($i, 1, 1)) - 1) * 16 + index(d, substr($i, 2, 1)) - 1 }')x")
	out=${out%x}
}
tree="WITH RECURSIVE tree(path, full, depth) AS (SELECT id, '2E', 0 FROM paths WHERE parent = 0 UNION ALL
	SELECT p.id, tree.full || '2F' || hex(p.name), depth + 1 FROM paths p JOIN tree ON p.parent = tree.path)
	SELECT f.id, f.type, t.full, f.mode, f.uid, f.gid, CASE WHEN f.mtime_s < 0 AND f.mtime_ns > 0
	THEN '-' || -(f.mtime_s + 1) || printf('.%09d', 1000000000 - f.mtime_ns) ELSE f.mtime_s || printf('.%09d', f.mtime_ns) END, '-' || coalesce(f.content, 0),
	f.rdev_major, f.rdev_minor, 'x' || coalesce(hex(f.target), ''), f.state,
	coalesce((SELECT min(g.id) FROM files g WHERE f.nlink > 1 AND f.type <> 'd' AND g.type = f.type AND g.volume = f.volume AND g.inode = f.inode AND g.content IS f.content), f.id),
	'x' || coalesce((SELECT group_concat(hex(name) || '=' || hex(value)) FROM xattrs WHERE file = f.id), '')
	FROM files f JOIN tree t ON t.path = f.path ORDER BY depth"
cd "$dest"
ask "$tree" | tr '|' ' ' >"$tmp/files"
while read -r _ type full _ _ _ _ content major minor target state first _; do
	unhex "$full" && path=$out
	if [ -e "$tmp/first.$first" ]; then
		unhex "$(cat "$tmp/first.$first")" && ln "$out" "$path"
		continue
	fi
	case $type in
	d) [ "$path" = . ] || mkdir "$path" ;;
	f) if grep -qx -e "${content#-}" "$tmp/lost"; then say "LOST: $path"; elif [ "$content" = -0 ]; then : >"$path"; else cp --sparse=auto "$tmp/content/${content#-}" "$path"; fi ;;
	l) unhex "${target#x}" && ln -s "$out" "$path" ;;
	p) mkfifo "$path" ;;
	c | b) mknod "$path" "$type" "$major" "$minor" 2>/dev/null || say "not restored, needs root: $path" ;;
	s) say "not restored, a socket: $path" ;;
	esac
	{ [ -e "$path" ] || [ -L "$path" ]; } && echo "$full" >"$tmp/first.$first"
	[ "$state" = complete ] || say "$state: $path"
done <"$tmp/files"

# Metadata, folders after what is in them: owner, then attributes (a change of
# owner clears capabilities), then mode, then times.
[ "$(id -u)" = 0 ] && owner=1 || owner=0
tac "$tmp/files" | while read -r _ type full mode uid gid mtime _ _ _ _ _ _ xattrs; do
	unhex "$full" && path=$out
	[ -e "$path" ] || [ -L "$path" ] || continue
	[ "$owner" = 0 ] || chown -h "$uid:$gid" "$path"
	for x in $(echo "${xattrs#x}" | tr , ' '); do
		unhex "${x%%=*}"
		setfattr -h -n "$out" -v "0x${x#*=}" "$path" 2>/dev/null || say "attribute $out not restored: $path"
	done
	[ "$type" = l ] || chmod "$(printf %o "$mode")" "$path"
	touch -h -d "@$mtime" "$path"
done
if [ -s "$tmp/lost" ]; then die "some content is lost, see above"; fi
new='' && say "restored below $dest"
