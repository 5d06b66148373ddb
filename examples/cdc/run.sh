#!/usr/bin/env bash
# Follows a table by what Debezium writes of it: orders.jsonl is a file of its envelopes. Uses the binary in $MILLSTREAM, else
# the one that cargo has built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
binary=${MILLSTREAM:-../../target/release/millstream}
[[ -x $binary ]] || { echo "run.sh: there is no $binary: run \`cargo build --release\` first" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed "s|FOLDER|$folder|" cdc.sql >"$folder/cdc.sql"
"$binary" run "$folder/cdc.sql" --store "$folder/store"
