#!/bin/sh
# Installs the programs that the demo and the tests run, with Debian's apt, as
# root or through sudo. Says what it installs; does nothing if all are there.
set -eu

missing=
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }

need gcc gcc
need age age
need zstd zstd
need sqlite3 sqlite3
need minisign minisign
need rsync rsync
need tar tar
need fusermount3 fuse3
need setfattr attr
need setfacl acl
need setcap libcap2-bin
need mkfs.ext4 e2fsprogs
need mount mount
need shellcheck shellcheck

[ -n "$missing" ] || exit 0
echo "installing with apt:$missing"
as_root=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null 2>&1 || { echo "install these as root, then try again:$missing" >&2; exit 1; }
	as_root=sudo
fi
# Lists may be old or absent on a fresh machine.
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
