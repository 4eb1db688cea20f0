#!/bin/sh
# Posts jobs with curl and watches them: one that waits for another and succeeds, one that fails twice first.
# `jobsvc demo` runs this with the URL of the service in JOBSVC_URL, and in KEY a key, if the service has keys.
set -eu

fail() {
    echo "demo: $1" >&2
    exit 1
}

command -v curl >/dev/null || fail "curl is not installed"
url=${JOBSVC_URL:-http://localhost:3000}
url=${url%/}
key=${KEY:-}
shown=${key:+ -H \"Authorization: Bearer \$KEY\"}

# The key goes in by stdin, since everybody on this machine sees arguments.
call() {
    printf 'header = "Authorization: Bearer %s"\n' "$(printf %s "$key" | sed 's/["\\]/\\&/g')" |
        if [ -n "$key" ]; then curl -K - "$@"; else curl "$@"; fi
}

field() { "${PYTHON:-python3}" -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

post() {
    echo "\$ curl -X POST $url/jobs$shown -H 'Content-Type: application/json' -d '$1'" >&2
    reply=$(call -sS --fail-with-body -X POST "$url/jobs" -H "Content-Type: application/json" -d "$1")
    echo "$reply" >&2
    echo "$reply" | field jobId
}

watch() {
    last=
    while :; do
        job=$(call -sS --fail-with-body "$url/jobs/$1")
        now="$(echo "$job" | field status), attempts: $(echo "$job" | field attempts)"
        if [ "$now" != "$last" ]; then
            echo "  $(date +%T)  $now"
            last=$now
        fi
        case $now in COMPLETED* | FAILED* | CANCELLED*) break ;; esac
    done
    echo "\$ curl $url/jobs/$1$shown"
    echo "$job"
    echo
}

case $(call -s -o /dev/null -w '%{http_code}' "$url/job-types" || true) in
200) ;;
000) fail "no service at $url: start one with \`jobsvc up\`, or set PORT, HOST or JOBSVC_URL" ;;
401) fail "the service at $url needs a key that may write: KEY=... jobsvc demo" ;;
403) fail "the service at $url refuses this machine, or this key" ;;
503) fail "the service at $url can't reach Postgres now" ;;
*) fail "what answers at $url is no jobsvc" ;;
esac

echo "Two jobs of one concurrencyKey, a second each: the other one waits for the first."
post '{"payload": {"durationMs": 1000}, "concurrencyKey": "demo"}' >/dev/null
watch "$(post '{"payload": {"durationMs": 1000, "result": "done"}, "concurrencyKey": "demo"}')"

echo "A job that fails twice, retried after 1 s and 2 s:"
id=$(post '{"payload": {"durationMs": 300, "failAttempts": 2}, "retry": {"max": 3, "interval": [1, 2, 4]}}')
watch "$id"
echo "\$ curl $url/jobs/$id/attempts$shown"
call -sS "$url/jobs/$id/attempts"
