// A cron job on a thread, with the JavaScript SDK: every day at 15:27 the agent is asked for the time, on one thread.
//
// Start the server (`make dev`), `npm install @langchain/langgraph-sdk`, then: `node examples/cron.mjs`.
// MATINS_URL names another server.

import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: process.env.MATINS_URL ?? "http://127.0.0.1:2024" });
const assistantId = "echo";
const thread = await client.threads.create();

const cronJob = await client.crons.createForThread(thread["thread_id"], assistantId, {
  schedule: "27 15 * * *",
  input: { messages: [{ role: "user", content: "What time is it?" }] },
});
console.log(cronJob);

// A cron fires until it is deleted, and each time costs what its agent costs.
await client.crons.delete(cronJob["cron_id"]);
console.log("deleted", cronJob["cron_id"]);
