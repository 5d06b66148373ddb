#!/usr/bin/env bash
# Follows a feed of trades live: feed.py plays a file of them by WebSocket on loopback, and each second of each symbol is shown
# when it is over. Takes a quarter of a minute; `run.sh 5` plays five times as fast. Needs python3. Uses the binary in
# $MILLSTREAM, else the one that cargo has built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
binary=${MILLSTREAM:-../../target/release/millstream}
[[ -x $binary ]] || { echo "run.sh: there is no $binary: run \`cargo build --release\` first" >&2; exit 1; }

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

python3 feed.py "${1:-1}" >"$folder/said" &
feed=$!
until [[ -s $folder/said ]]; do sleep 0.05; done
sed "s/PORT/$(head -n 1 "$folder/said")/" live.sql >"$folder/live.sql"
"$binary" run "$folder/live.sql" --store "$folder/store" &
millstream=$!
until grep -q "all is said" "$folder/said"; do
    kill -0 "$feed" "$millstream" 2>/dev/null || { echo "run.sh: the feed broke off" >&2; exit 1; }
    sleep 0.1
done
# The last second is shown before all ends.
sleep 1
kill "$millstream"
wait "$millstream" || true
echo "the feed has ended"
