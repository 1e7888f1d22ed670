#!/bin/sh
# Builds the older controld of crates/chaos/src/older.txt from the git history, once: TARGET/release/controld-COMMIT.
# The same target directory is used, so that what both have in common is compiled once. Its gRPC was built without TLS: about twenty minutes.
set -eu
target=$1
commit=$(grep -v '^#' crates/chaos/src/older.txt | head -n 1)
kept=$target/release/controld-$commit
[ -x "$kept" ] && exit 0
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    printf '\n== SKIPPED: no older controld, since commit %s is not in this clone (git fetch --unshallow brings it)\n' "$commit"
    exit 0
fi
printf '\n== The older controld (%s), from the git history\n' "$commit"
# A place of its own that stays the same: cargo knows crates by their paths.
source=$target/older/$commit
mkdir -p "$source"
git archive "$commit" | tar -x -C "$source"
# Another version: cargo would take what is compiled from this checkout, at the same path below its own root, for the older crates.
sed -i '/^\[workspace.package\]/,/^\[/ s/^version = "\([^"]*\)"/version = "\1+older"/' "$source/Cargo.toml"
grep -q '+older"' "$source/Cargo.toml" || { echo "failed to mark the older crates in $source/Cargo.toml" >&2; exit 1; }
(cd "$source" && CARGO_TARGET_DIR=$target cargo build --release -p controld)
cp "$target/release/controld" "$kept.new"
mv "$kept.new" "$kept"
# The binary of this checkout is put back by the build that follows.
rm -rf "$source" "$target/release/controld"
