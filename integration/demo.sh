#!/bin/sh
# The whole of vaultik in a minute: back up a folder to a local store, mount
# it, copy it out with cp and rsync, compare, unmount. Everything happens in a
# temporary folder that is removed at the end.
set -eu

vaultik=$(realpath "$1")
work=$(mktemp -d)
mnt=$work/mnt
cleanup() {
	if grep -q " $mnt fuse" /proc/self/mounts; then fusermount3 -u "$mnt" || umount "$mnt"; fi
	chmod -R u+rwx "$work" && rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

export HOME="$work/home" VAULTIK_CONFIG="$work/vaultik.toml" VAULTIK_STATE_DIR="$work/state" VAULTIK_CACHE_DIR="$work/cache" NO_COLOR=1
unset VAULTIK_STORE VAULTIK_IDENTITY VAULTIK_IDENTITY_FILE
cd "$work"

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
try() {
	printf '$ %s\n' "$(echo "$*" | sed "s|$vaultik|vaultik|g; s|$work/||g; s|$work||g")"
	"$@"
}

step "A folder to back up"
mkdir -p home/photos/2024 home/letters mnt copy-cp copy-rsync
seq 1 20000 | sed 's/^/all work and no play makes jack a dull boy /' >home/letters/novel.txt
head -c 3000000 /dev/urandom >home/photos/2024/beach.jpg
ln home/photos/2024/beach.jpg home/photos/favourite.jpg
ln -s photos/favourite.jpg home/wallpaper
truncate -s 50M home/disk.img
printf 'dear ann\n' >"home/letters/a name with
a newline"
chmod 600 home/letters/novel.txt
touch -d '2001-09-09 01:46:40.123456789 UTC' home/letters
try du -sh --apparent-size home

step "1. Set up: a local store, a recovery kit"
try "$vaultik" init --store "file://$work/store" --kit "$work/kit.txt" "$work/home"

step "2. Back up, twice: the second time nothing has changed"
try "$vaultik" backup
sleep 2.1
try "$vaultik" backup
try "$vaultik" backup

step "3. What is in the store"
try "$vaultik" snapshot list
try du -sh store

step "4. Mount the newest snapshot and look"
try "$vaultik" mount --background --identity "$work/kit.txt" latest "$mnt"
try ls -la "$mnt$work/home"

step "5. Copy it out with cp and with rsync, and compare"
try cp -a "$mnt$work/home/." copy-cp
try rsync -aHAX "$mnt$work/home/" copy-rsync/
compare() {
	rsync -aHAXn --checksum --delete --itemize-changes "$work/home/" "$1/" >"$work/differences"
	if [ -s "$work/differences" ]; then
		cat "$work/differences"
		echo "the copy differs"
		exit 1
	fi
	echo "$1: no difference in $(find "$1" | wc -l) entries: content, modes, owners, times, links, attributes"
}
compare copy-cp
compare copy-rsync

step "6. Unmount"
try fusermount3 -u "$mnt"

step "Done."
