#!/bin/sh
# Posts jobs with curl and watches them: one that waits for another and succeeds, one that fails twice first.
set -eu
url=${JOBSVC_URL:-http://localhost:3000}

field() { python -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

post() {
    echo "\$ curl -X POST $url/jobs -H 'Content-Type: application/json' -d '$1'" >&2
    reply=$(curl -sS --fail-with-body -X POST "$url/jobs" -H "Content-Type: application/json" -d "$1")
    echo "$reply" >&2
    echo "$reply" | field jobId
}

watch() {
    last=
    while :; do
        job=$(curl -sS --fail-with-body "$url/jobs/$1")
        now="$(echo "$job" | field status), attempts: $(echo "$job" | field attempts)"
        if [ "$now" != "$last" ]; then
            echo "  $(date +%T)  $now"
            last=$now
        fi
        case $now in COMPLETED* | FAILED*) break ;; esac
    done
    echo "\$ curl $url/jobs/$1"
    echo "$job"
    echo
}

curl -sS -o /dev/null "$url/healthz" || { echo "No service at $url: start one with \`make up\`." >&2; exit 1; }

echo "Two jobs of one concurrencyKey, a second each: the other one waits for the first."
post '{"payload": {"durationMs": 1000}, "concurrencyKey": "demo"}' >/dev/null
watch "$(post '{"payload": {"durationMs": 1000, "result": "done"}, "concurrencyKey": "demo"}')"

echo "A job that fails twice, retried after 1 s and 2 s:"
id=$(post '{"payload": {"durationMs": 300, "failAttempts": 2}, "retry": {"max": 3, "interval": [1, 2, 4]}}')
watch "$id"
echo "\$ curl $url/jobs/$id/attempts"
curl -sS "$url/jobs/$id/attempts"
