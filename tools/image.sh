#!/bin/sh
# Builds the container image's root file system from Debian packages and this checkout, without pulling any image: out/image/root.tar, which
# the Dockerfile takes as it is. `docker import` and `podman import` take it too. Needs root, debootstrap, npm and about 2 GB.
# Usage: sh tools/image.sh [--suite bookworm] [--mirror http://deb.debian.org/debian]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
suite=bookworm
mirror=http://deb.debian.org/debian
# bubblewrap, util-linux: sandboxes. iproute2, wireguard: meshes of rentals. tini: reaps what processes leave.
packages=bubblewrap,util-linux,ca-certificates,iproute2,wireguard-tools,wireguard-go,procps,tini,libstdc++6

fail() {
  printf 'image: %s\n  %s\n' "$1" "$2" >&2
  exit 5
}
while [ $# -gt 0 ]; do
  case $1 in
    --suite) suite=${2:?} && shift 2 ;;
    --mirror) mirror=${2:?} && shift 2 ;;
    *) fail "unknown option $1" 'See the head of tools/image.sh.' ;;
  esac
done
[ "$(id -u)" = 0 ] || fail 'debootstrap wants root' 'Run it with sudo; nothing outside out/image is written.'
command -v debootstrap >/dev/null || fail 'debootstrap is not installed' 'apt-get install debootstrap'
command -v npm >/dev/null || fail 'npm is not installed' 'apt-get install npm'

out=$root/out/image
work=$(mktemp -d "${TMPDIR:-/tmp}/millrace-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$out"

printf 'Debian %s from %s\n' "$suite" "$mirror" >&2
debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" "$mirror" >"$out/debootstrap.log" 2>&1 ||
  fail 'debootstrap failed' "Read $out/debootstrap.log."
rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists" "$work/root/usr/share/doc" "$work/root/usr/share/man" \
  "$work/root/usr/share/locale" "$work/root/var/log/"*

printf 'Millrace and its parts\n' >&2
app=$work/root/opt/millrace
mkdir -p "$app" "$work/root/var/lib/millrace"
# What the last commit has, without what only developers need.
git -C "$root" archive HEAD -- src profiles models examples docs tools/node.sh tools/bundle.ts millrace package.json package-lock.json .npmrc LICENSE README.md |
  tar -C "$app" -xf -
(cd "$app" && npm ci --omit=dev --no-audit --no-fund >"$out/npm.log" 2>&1) || fail 'npm ci failed' "Read $out/npm.log."
sh "$app/tools/node.sh" --version >/dev/null || fail 'Node does not start' "Run $app/tools/node.sh --version." # makes the bundles of libraries
git -C "$root" rev-parse HEAD >"$app/.revision"

printf 'archive\n' >&2
tar -C "$work/root" --sort=name --numeric-owner --mtime="@$(git -C "$root" log -1 --format=%ct)" -cf "$out/root.tar.part" .
mv "$out/root.tar.part" "$out/root.tar"
printf '%s\n' "$out/root.tar"
