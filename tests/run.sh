#!/usr/bin/env bash
# All tests: unit and system tests in Rust, documentation tests, then the Python tests against real processes.
# Needs git, the Rust toolchain and python3; makes the rest itself. Words after the script go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s\n' "$*"; }
fail() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }

for tool in git cargo python3; do
    command -v "$tool" >/dev/null || fail "there is no $tool: install it first"
done
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11"

# Needs program $1, which is in package $2 where there is apt-get.
need() {
    if command -v "$1" >/dev/null; then return; fi
    command -v apt-get >/dev/null || fail "there is no $1: install it first"
    local root=(); [[ $(id -u) == 0 ]] || root=(sudo)
    "${root[@]}" apt-get update -q && "${root[@]}" apt-get install -qy --no-install-recommends "$2" || fail "cannot install $2, which has $1"
}

step "set up"
need openssl openssl
need promtool prometheus
need curl curl
need ip iproute2
need systemd-analyze systemd
need npm npm
browsers=(chromium-headless-shell chromium chromium-browser google-chrome)
command -v "${browsers[@]}" >/dev/null || need "${browsers[0]}" chromium-headless-shell
if ! cargo nextest --version >/dev/null 2>&1; then
    cargo install cargo-nextest --locked || fail "cannot install cargo-nextest"
fi
venv=.venv
needed=tests/python/requirements
azurite=azurite@3.37.0
lint=dockerfilelint@1.8.0
wanted=$( (cat $needed.txt $needed-httpfs.txt; echo $azurite $lint) | python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [[ ! -x $venv/bin/python || $(cat "$venv/requirements.sha256" 2>/dev/null) != "$wanted" ]]; then
    python3 -m venv --clear "$venv" || fail "python3 cannot make a virtual environment: install its venv module"
    "$venv/bin/python" -m pip install --quiet --requirement $needed.txt || fail "cannot install what $needed.txt names"
    "$venv/bin/python" -m pip install --quiet --target "$venv/httpfs" --requirement $needed-httpfs.txt ||
        fail "cannot install what $needed-httpfs.txt names"
    npm install --silent --no-audit --no-fund --prefix "$venv/azurite" $azurite $lint || fail "cannot install Azurite and dockerfilelint"
    printf '%s\n' "$wanted" >"$venv/requirements.sha256"
fi
cargo nextest --version | head -n 1
"$venv/bin/python" --version

step "build"
cargo build --release --workspace --all-targets

step "tests in Rust"
cargo nextest run --release --workspace

step "documentation tests"
cargo test --doc --release --workspace

step "tests in Python"
# Most of them wait for processes: two files at once.
"$venv/bin/python" -m pytest tests/python -n 2 --dist loadfile "$@"
