#!/bin/sh
# Installs the Debian packages that the build needs, only those that are missing, and says so. Safe to repeat.
set -eu

missing=
need() { missing="$missing $1"; }

command -v cmake >/dev/null 2>&1 || need cmake
command -v g++ >/dev/null 2>&1 || need g++
command -v clang >/dev/null 2>&1 || need clang
# bindgen loads libclang at build time.
find /usr/lib "${LIBCLANG_PATH:-/usr/lib}" \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) 2>/dev/null | grep -q . || need libclang-dev
# Debian's python3 has no ensurepip without this package.
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || need python3-venv

if ! command -v cargo >/dev/null 2>&1; then
  echo 'cargo is missing; try: https://rustup.rs, then make again' >&2
  exit 1
fi
[ -n "$missing" ] || exit 0

echo "== installing missing Debian packages:$missing"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "this is not Debian or Ubuntu: install the equivalents of$missing by hand, then run make again" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  as_root=
elif command -v sudo >/dev/null 2>&1; then
  as_root=sudo
else
  echo "no permission to install$missing; try as root: apt-get install -y$missing" >&2
  exit 1
fi
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# $missing is a list of words.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
