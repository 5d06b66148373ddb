#!/usr/bin/env bash
# Three nodes over one bucket, and nothing else: a job has tasks on all of them. In the middle one node is killed, then the one that leads, and
# the result is what it would be without. Takes half a minute. Needs curl, and python3, which makes itself an S3 server in a folder of its own, unless
# $PYTHON names one that has moto[server]. Uses the binary in $MILLSTREAM, else the one that cargo has built. The last line says how it went.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
millstream=$(realpath "${MILLSTREAM:-../../target/release/millstream}")
[[ -x $millstream ]] || { echo "run.sh: there is no $millstream: run \`cargo build --release\` first" >&2; exit 1; }

folder=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
fail() { echo "run.sh: $*" >&2; cat "$folder"/*.log >&2; echo "it did not go as it should"; exit 1; }
said() { for _ in {1..200}; do grep -qs "$2" "$1" && return; sleep 0.05; done; fail "nobody said \"$2\""; }

python=${PYTHON:-}
if [[ -z $python ]]; then
    echo "an S3 server is installed for this run"
    python3 -m venv "$folder/venv" && python=$folder/venv/bin/python
    "$python" -m pip install --quiet 'moto[server]==5.2.5' || fail "moto cannot be installed"
fi
"$python" s3.py >"$folder/s3.txt" 2>"$folder/s3.log" &
said "$folder/s3.txt" http
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
AWS_ENDPOINT=$(<"$folder/s3.txt")
export AWS_ENDPOINT

# Each has a folder of its own for what it does not keep, as on a machine of its own.
nodes=() addresses=() doors=()
for n in 0 1 2; do
    mkdir "$folder/machine-$n"
    TMPDIR=$folder/machine-$n "$millstream" serve --store s3://lake/shop --listen 127.0.0.1:0 --http 127.0.0.1:0 \
        --parallelism 2 --node-timeout 1s --checkpoint-interval 200ms 2>"$folder/node-$n.log" &
    nodes+=($!)
    said "$folder/node-$n.log" "^http:"
    doors+=("$(sed -nE 's/^http: //p' "$folder/node-$n.log")")
    addresses+=("$(sed -nE 's/.* on grpc:\/\/(127.0.0.1:[0-9]+).*/\1/p' "$folder/node-$n.log" | head -n 1)")
done
echo "three nodes serve s3://lake/shop: ${addresses[*]}"

# Asks node $1 for $2.
ask() { curl -sS --fail-with-body -H 'Accept: text/csv' --data "$2" "${doors[$1]}/sql" 2>>"$folder/asked.log"; }
"$millstream" shell --connect "grpc://${addresses[1]}" <shop.sql >/dev/null 2>"$folder/made.log" &
# Waits until node $1 says that $2 nodes have tasks.
spread() {
    for _ in {1..200}; do
        [[ $(ask "$1" "SHOW NODES" | tail -n +2 | cut -d, -f4 | grep -vc '^0$') == "$2" ]] && return
        sleep 0.1
    done
    fail "$2 nodes should have tasks"
}
spread 2 3
echo "the tasks of one job are on all three:"
ask 2 "SHOW NODES" | cut -d, -f1-4

killed() { kill -9 "${nodes[$1]}" || fail "node $1 has ended"; wait "${nodes[$1]}" 2>/dev/null || true; }
killed 2
echo "node ${addresses[2]} was killed"
spread 1 2
killed 0
echo "node ${addresses[0]}, which led, was killed"
spread 1 1
echo "the job goes on at ${addresses[1]}"

ask 1 "FLUSH" >/dev/null || fail "the job does not end"
totals="SELECT bidder AS customer, count(*) AS orders, sum(price) AS amount FROM all_orders GROUP BY bidder"
wrong=$(ask 1 "SELECT count(*) FROM (($totals EXCEPT SELECT * FROM totals) UNION ALL (SELECT * FROM totals EXCEPT $totals)) AS t" | tail -n 1)
[[ $wrong == 0 ]] || fail "$wrong totals are not those of the same query in batch"
echo "all totals are those of the same query in batch"
