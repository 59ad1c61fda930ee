#!/usr/bin/env bash
# Starts the release server with its data in ./run/data, and says what to type next. Ctrl-C stops it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BIN=${GUREUM_BIN:-$PWD/target/release}
readonly DATA=run/data

mkdir -p run
"$BIN/gureumd" serve --data-dir "$DATA" >run/ready.json &
server=$!
stop() { kill -TERM "$server" 2>/dev/null || true; }
trap stop INT TERM

for _ in {1..300}; do
    [[ -s run/ready.json ]] && break
    kill -0 "$server" 2>/dev/null || {
        wait "$server" || exit $?
    }
    sleep 0.1
done
[[ -s run/ready.json ]] || {
    echo "run: the server is not ready after 30 s" >&2
    stop
    exit 1
}
cat run/ready.json

invite=$("$BIN/gureumd" invite --data-dir "$DATA" --uses 2 --expires 7d)
cat <<TEXT

The server is running; Ctrl-C stops it. In another terminal, as two people with a home each:

  cd $PWD && export PATH="$BIN:\$PATH"

  gureum --home run/ada  register '$invite' --handle ada
  gureum --home run/bora register '$invite' --handle bora

  gureum --home run/ada  send bora 'Hello, Bora'
  gureum --home run/bora receive
  gureum --home run/bora chat ada

To invite somebody else:  gureumd invite --data-dir $DATA

TEXT
# A signal ends the first wait; the second one is for the server to finish.
wait "$server" || wait "$server" || exit $?
