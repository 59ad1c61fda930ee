#!/usr/bin/env bash
# Plays the story with the real binaries: two people talk, one of them is away, the server is killed, messages expire,
# and nothing readable is left behind. Shows each command with its output and ends with an error if one is not as told.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BIN=${GUREUM_BIN:-$PWD/target/release}
readonly MARKER='mulberry-4711'
PATH=$BIN:$PATH
unset GUREUM_HOME GUREUM_CONFIG GUREUM_DATA_DIR

place=$(mktemp -d)
cd "$place"
server=
follower=

finish() {
    local status=$?
    [[ -z $follower ]] || kill "$follower" 2>/dev/null || true
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait
    if ((status != 0)); then
        printf '\ndemo: failed; everything is in %s, the server log at its end:\n' "$place" >&2
        tail -n 20 server.log >&2 || true
    else
        rm -rf "$place"
    fi
}
trap finish EXIT

tell() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

# Shows a command and its output, and keeps the output in the file `out`.
run() {
    printf '$ %s\n' "$*"
    "$@" | tee out
}

# The last output has so many lines that match.
expect() {
    local found
    found=$(grep -c -- "$2" "${3:-out}" || true)
    [[ $found == "$1" ]] || {
        echo "demo: expected $1 lines with '$2', found $found" >&2
        return 1
    }
}

# Waits until a file has a line that matches.
await() {
    local _
    for _ in {1..200}; do
        grep -q -- "$2" "$1" 2>/dev/null && return
        sleep 0.05
    done
    echo "demo: '$2' did not come within 10 s" >&2
    return 1
}

# Starts the server, with more arguments, on the address that it had before.
start_server() {
    printf '$ gureumd serve --data-dir data --listen %s %s &\n' "$listen" "$*"
    : >ready.json
    gureumd serve --data-dir data --listen "$listen" --admin 127.0.0.1:0 "$@" >ready.json 2>>server.log &
    server=$!
    await ready.json '"event":"ready"'
    listen=$(sed 's/.*"listen":"\([^"]*\)".*/\1/' ready.json)
}

stop_server() {
    printf '$ kill -%s gureumd\n' "$1"
    kill "-$1" "$server"
    wait "$server" 2>/dev/null || true
    server=
}

tell 'A server, and an invite for two'
listen=127.0.0.1:0
start_server
cat ready.json
run gureumd invite --data-dir data --uses 2
invite=$(cat out)

tell 'Two people register'
run gureum --home ada register "$invite" --handle ada
words=$(sed -n 's/^    \([a-z ]*\)$/\1/p' out)
run gureum --home bora register "$invite" --handle bora

tell 'Bora is connected: what Ada sends is there at once'
printf '$ gureum --home bora receive --follow &\n'
gureum --home bora receive --follow >live 2>live.err &
follower=$!
await live.err 'up to date'
run gureum --home ada send bora "Hello, Bora. The word is $MARKER."
await live "$MARKER"
cat live
kill -INT "$follower"
wait "$follower" 2>/dev/null || true
follower=

tell 'Bora goes away; Ada sends ten messages; the server is killed and started again'
for number in {1..10}; do
    run gureum --home ada send bora "while you were away: $number"
done
stop_server KILL
start_server

tell 'Bora comes back and has all ten, once each, in order'
run gureum --home bora receive
expect 10 'while you were away'
diff <(grep -o 'away: [0-9]*' out) <(printf 'away: %s\n' {1..10})
run gureum --home bora send ada 'I am back'
run gureum --home ada receive
expect 1 'I am back'

tell 'Both have the whole talk, in order of time'
run gureum --home ada history bora
expect 10 'while you were away'
run gureum --home bora history ada
expect 10 'while you were away'

tell 'Ada links a tablet: it shows a code, her first device approves it, and both show the same digits'
url=$(sed 's/.*"url":"\([^"]*\)".*/\1/' ready.json)
printf '$ gureum --home tablet link %s --device-name tablet &\n' "$url"
gureum --home tablet link "$url" --device-name tablet >tablet.out 2>tablet.err &
follower=$!
await tablet.out '^GL'
run gureum --home ada devices approve "$(grep '^GL' tablet.out)" </dev/null
wait "$follower"
follower=
cat tablet.out
diff <(grep -o 'Compare: .*' out) <(grep -o 'Compare: .*' tablet.out)

tell 'What Bora sends reaches both, and what the tablet sends is on the first device as well'
run gureum --home bora send ada 'to all of your devices'
run gureum --home tablet receive
expect 1 'to all of your devices'
run gureum --home tablet send bora 'from the tablet'
run gureum --home ada receive
expect 1 'to all of your devices'
expect 1 'from the tablet'
run gureum --home bora receive
expect 1 'from the tablet'

tell 'The tablet is lost: Ada revokes it, and it is cut off'
run gureum --home ada devices
run gureum --home ada devices revoke tablet
printf '$ gureum --home tablet receive\n'
if gureum --home tablet receive 2>&1; then
    exit 1
fi

tell 'A group'
run gureum --home ada group create 'Book club' bora
run gureum --home ada send 'Book club' "chapter three, by the $MARKER"
run gureum --home bora receive
expect 2 'Book club'
run gureum --home bora group show 'Book club'
expect 1 'ada  admin'

tell 'The same server, keeping messages for six seconds instead of three days'
stop_server TERM
start_server --retention 6s
for number in {1..3}; do
    run gureum --home ada send bora "nobody comes for this in time: $number"
done
echo '... eight seconds pass ...'
sleep 8
run gureum --home ada send bora 'this one is in time'

tell 'Bora is told how many messages are gone, and goes on'
run gureum --home bora receive
expect 0 'nobody comes'
expect 1 'this one is in time'
run gureum --home bora --json history ada
expect 10 'while you were away'
expect 1 '"event":"gap".*"count":3'

tell 'No text stands in what the server keeps: not in its database, keys or log'
printf '$ grep -r %s data server.log\n' "$MARKER"
if grep -r -- "$MARKER" data server.log; then
    exit 1
fi
echo '(nothing)'

tell 'The safety number is the same on both sides'
run gureum --home ada safety-number bora
cp out number
run gureum --home bora safety-number ada
diff <(grep -oE '[0-9]{5}' number) <(grep -oE '[0-9]{5}' out)

tell 'Ada loses her last device; her twelve words bring the account back, and the talk goes on'
rm -rf ada
printf '%s\n' "$words" | run gureum --home new recover "$url"
run gureum --home new send bora 'it is me again'
run gureum --home bora receive
expect 1 'it is me again'
run gureum --home bora safety-number ada
diff <(grep -oE '[0-9]{5}' number) <(grep -oE '[0-9]{5}' out)

stop_server TERM
printf '\ndemo: everything was as told\n'
