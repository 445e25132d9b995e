#!/bin/sh
# Runs every fuzz target for a time, or a number of tries, one after the other:
#   fuzz.sh TAGS 10s|1000x [short]
# Go instruments all that is below a target, to breed inputs that reach new
# code, and so compiles everything anew, SQLite among it. That takes longer than
# a short run itself; "short" mutates the seeds blindly, in the binaries
# that the other tests have.
set -eu

tags=$1 time=$2 short=${3-}
go=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# fuzz runs target $2 of the package in folder $1.
fuzz() {
	if [ -z "$short" ]; then
		"$go" test -vet=off -tags "$tags" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 1s "$1"
		return
	fi
	(cd "$1" && "$work/test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" \
		-test.fuzzminimizetime 1s -test.fuzzcachedir "$work/cache") >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
}

n=0
for folder in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	[ -z "$short" ] || "$go" test -vet=off -tags "$tags" -ldflags=-w -c -o "$work/test" "$folder"
	# shellcheck disable=SC2013 # names are single words
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$folder"/*_test.go); do
		echo "fuzz $folder $target"
		# With a time, before Go 1.27, some end with "context deadline exceeded", which
		# says nothing (go.dev/issue/75804); a number of tries, such as 1000x, has no
		# deadline. An input that fails is kept in testdata, and fails again.
		left=4
		until fuzz "$folder" "$target"; do
			left=$((left - 1))
			[ "$left" -gt 0 ] || exit 1
		done
		n=$((n + 1))
	done
done
[ "$n" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
