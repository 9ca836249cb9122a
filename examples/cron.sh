#!/bin/sh
# A cron job on a thread, with curl: every day at 15:27 the agent is asked for the time, on one thread.
#
# Start the server (`make dev`), then: `sh examples/cron.sh`. MATINS_URL names another server.
set -eu
url="${MATINS_URL:-http://127.0.0.1:2024}"

# Takes the value of one key out of a JSON object.
value_of() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

thread_id=$(curl --silent --fail-with-body --request POST "$url/threads" \
    --header 'Content-Type: application/json' --data '{}' | value_of thread_id)
echo "thread $thread_id"

# An assistant alone is not enough: the answer is 422 and names what is missing, the schedule.
curl --silent --write-out ' (%{http_code})\n' --request POST "$url/threads/$thread_id/runs/crons" \
    --header 'Content-Type: application/json' --data '{"assistant_id": "echo"}'

cron_id=$(curl --silent --fail-with-body --request POST "$url/threads/$thread_id/runs/crons" \
    --header 'Content-Type: application/json' \
    --data '{
      "assistant_id": "echo",
      "schedule": "27 15 * * *",
      "input": {"messages": [{"role": "user", "content": "What time is it?"}]}
    }' | value_of cron_id)
echo "cron $cron_id"

# A cron fires until it is deleted, and each time costs what its agent costs.
curl --silent --fail-with-body --request DELETE "$url/runs/crons/$cron_id"
echo "deleted $cron_id"
