"""A cron job on a thread, with the Python SDK: every day at 15:27 the agent is asked for the time.

Start the server (`make dev`), then: `python examples/cron.py`. MATINS_URL names another server.
"""

from __future__ import annotations

import asyncio
import os

from langgraph_sdk import get_client


async def main():
    client = get_client(url=os.environ.get("MATINS_URL", "http://127.0.0.1:2024"))
    assistant_id = "echo"
    thread = await client.threads.create()

    cron_job = await client.crons.create_for_thread(
        thread["thread_id"],
        assistant_id,
        schedule="27 15 * * *",
        input={"messages": [{"role": "user", "content": "What time is it?"}]},
    )
    print(cron_job)

    # A cron fires until it is deleted, and each time costs what its agent costs.
    await client.crons.delete(cron_job["cron_id"])
    print("deleted", cron_job["cron_id"])


if __name__ == "__main__":
    asyncio.run(main())
