#!/usr/bin/env bash
# Checks that vendor/fuser is the released crate with vendor/fuser.patch, and nothing else.
set -eu
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r fuser/. "$work"
cd "$work"
rm Cargo.toml
# git takes a patch anywhere, as long as it does not find itself in a repository.
GIT_CEILING_DIRECTORIES=$(dirname "$work") git apply --reverse "$here/fuser.patch"
sha256sum --quiet --strict -c "$here/fuser.sha256"
diff <(find . -type f | sed 's:^\./::' | LC_ALL=C sort) <(awk '{ print $2 }' "$here/fuser.sha256" | LC_ALL=C sort)
