// Calls one of the JavaScript SDKs for a test: node tests/js/call.mjs <sdk-1.15|sdk-2.0> <base url> [options JSON]
//
// One JSON object a line. In:  {"id": 1, "path": "crons.createForThread", "args": [...], "limit": 3}
//                         Out: {"id": 1, "ok": ...} or {"id": 1, "error": {"name", "message", "status"}}
// Beside "ok": "streamed" when the items were collected, "created" with what `onRunCreated` was told, where it was.
// Calls run side by side and are answered as they end. What can be iterated is collected, up to `limit` items.
// The program ends when stdin has ended and every call is answered.

import { createInterface } from "node:readline";

const [sdk, apiUrl, options = "{}"] = process.argv.slice(2);
const { Client } = await import(sdk);
const client = new Client({ apiUrl, callerOptions: { maxRetries: 0 }, ...JSON.parse(options) });

function resolve(path) {
  const names = path.split(".");
  const method = names.pop();
  const owner = names.reduce((found, name) => found[name], client);
  return owner[method].bind(owner);
}

async function collect(iterable, limit) {
  const items = [];
  if (limit === 0) return items;
  for await (const item of iterable) {
    items.push(item);
    if (items.length === limit) break;
  }
  return items;
}

async function answer({ id, path, args = [], limit }) {
  const created = [];
  if (/^runs\.(create|stream|wait)$/.test(path)) args[2] = { ...args[2], onRunCreated: (run) => created.push(run) };
  try {
    const returned = await resolve(path)(...args);
    if (returned?.[Symbol.asyncIterator]) {
      return { id, ok: await collect(returned, limit), streamed: true, created };
    }
    return { id, ok: returned ?? null, created };
  } catch (error) {
    const { name, message, status = null } = error;
    return { id, error: { name, message, status }, created };
  }
}

const answers = [];
for await (const line of createInterface({ input: process.stdin })) {
  answers.push(answer(JSON.parse(line)).then((reply) => process.stdout.write(`${JSON.stringify(reply)}\n`)));
}
await Promise.all(answers);
process.exit(); // the SDKs do not close what they no longer read: a thread's stream would keep us here for good
