#!/usr/bin/env bash
# Two sites that share nothing: requests come to site A by HTTPS, and from a server that it polls; they go to site B by Flight over
# mutual TLS, are kept there as Parquet and counted, and the counts go back to A by UDP. In the middle site B is killed, and comes
# back. Takes some seconds. Needs python3 and openssl. Uses the binary in $MILLSTREAM, else the one that cargo has built. The last line says how it went.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
millstream=$(realpath "${MILLSTREAM:-../../target/release/millstream}")
[[ -x $millstream ]] || { echo "run.sh: there is no $millstream: run \`cargo build --release\` first" >&2; exit 1; }
count=${1:-4000}

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
fail() { echo "run.sh: $*" >&2; cat "$folder"/*.log >&2; echo "not all arrived as it should"; exit 1; }

# Waits until the file $1 has a line with $2.
said() { for _ in {1..200}; do grep -qs "$2" "$1" && return; sleep 0.05; done; fail "nobody said \"$2\""; }

# An authority, and who it vouches for: both sites, and the clients at the gate.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=two sites" \
    -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
for who in site_a site_b gate; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" \
        -keyout "$folder/$who.key" -out "$folder/$who.csr" 2>/dev/null
    openssl x509 -req -in "$folder/$who.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo "subjectAltName=IP:127.0.0.1") -out "$folder/$who.pem" 2>/dev/null
done

# It brings them in three seconds, so that site B is in the middle of it when it is killed.
coproc gate { python3 gate.py "$folder" "$count" 127.0.0.1 $((count / 3)) 2>"$folder/gate.log"; }
gate_pid=$gate_PID
exec 5<&"${gate[0]}" 6>&"${gate[1]}"
read -r udp offers <&5

echo "site A: takes requests over HTTPS, polls others, serves them over Flight"
sed "s|HOST|127.0.0.1|; s|OFFERS|$offers|" site_a.sql >"$folder/site_a.sql"
"$millstream" run "$folder/site_a.sql" --store "$folder/a" 2>"$folder/a-made.log" || fail "site A cannot be made"
"$millstream" serve --store "$folder/a" --listen 127.0.0.1:0 --http 127.0.0.1:0 --checkpoint-interval 20ms \
    --tls-cert "$folder/site_a.pem" --tls-key "$folder/site_a.key" --tls-client-ca "$folder/ca.pem" 2>"$folder/a.log" &
said "$folder/a.log" "connect:"
flight=$(sed -nE 's/.*grpc\+tls:\/\/127.0.0.1:([0-9]+).*/\1/p' "$folder/a.log" | head -n 1)
http=$(sed -nE 's/.*https:\/\/127.0.0.1:([0-9]+).*/\1/p' "$folder/a.log" | head -n 1)
[[ -n $flight && -n $http ]] || fail "site A does not serve"

sed "s|HOST|127.0.0.1|; s|FLIGHT|$flight|; s|UDP|$udp|; s|FOLDER|$folder|g" site_b.sql >"$folder/site_b.sql"
site_b() {
    "$millstream" serve --store "$folder/b" --listen 127.0.0.1:0 --checkpoint-interval 20ms 2>>"$folder/b.log" &
    site_b=$!
}
echo "site B: fetches them, keeps them as Parquet, counts them"
"$millstream" run "$folder/site_b.sql" --store "$folder/b" 2>"$folder/b-made.log" || fail "site B cannot be made"
site_b
said "$folder/b.log" "connect:"
echo "$http" >&6
sleep 1
kill -9 "$site_b" || fail "site B has ended"
wait "$site_b" 2>/dev/null || true
echo "site B was killed, and comes back"
site_b
cat <&5 || true
wait "$gate_pid" || fail "the gate failed"

kill "$site_b" || fail "site B has ended"
wait "$site_b" 2>/dev/null || true
ask() { "$millstream" run - --store "$folder/b" --format csv 2>>"$folder/asked.log" <<<"$1" | tail -n 1; }
kept=$(ask "SELECT count(*) || ' ' || count(DISTINCT id) FROM kept WHERE id < $count;")
[[ $kept == "$count $count" ]] || fail "site B has $kept rows and ids of $count"
echo "site B has each of them once, as Parquet in streams/kept"
wrong=$(ask "WITH batch AS (SELECT path, window_end, count(*) AS requests, sum(bytes) AS bytes
                FROM TUMBLE(kept, at, INTERVAL '1 second') WHERE id < $count GROUP BY path, window_end)
            SELECT count(*) FROM (SELECT * FROM batch EXCEPT SELECT * FROM counts) AS missing;")
[[ $wrong == 0 ]] || fail "$wrong counts are not those of the same query in batch"
echo "all $count requests arrived once, and the counts are those of the same query in batch"
