// Answers calls on stdin, one JSON object a line, for the programs of this folder.
//
// In:  {"id": 1, "path": "crons.createForThread", "args": [...], "limit": 3}
// Out: {"id": 1, "ok": ...} or {"id": 1, "error": {"name", "message", "status"}}
// Beside "ok": "streamed" when the items were collected, "created" with what `onRunCreated` was told, where it was.
// Calls run side by side and are answered as they end. What can be iterated is collected, up to `limit` items.
// The program ends when stdin has ended and every call is answered.

import { createInterface } from "node:readline";

async function collect(iterable, limit) {
  const items = [];
  if (limit === 0) return items;
  for await (const item of iterable) {
    items.push(item);
    if (items.length === limit) break;
  }
  return items;
}

/** Answer a call with what the method of that path in `root` returns; `prepare` may change its arguments. */
async function answer(root, prepare, { id, path, args = [], limit }) {
  const created = [];
  const names = path.split(".");
  const method = names.pop();
  try {
    const owner = names.reduce((found, name) => found[name], root);
    const returned = await owner[method](...prepare(path, args, created));
    if (returned?.[Symbol.asyncIterator]) {
      return { id, ok: await collect(returned, limit), streamed: true, created };
    }
    return { id, ok: returned ?? null, created };
  } catch (error) {
    const { name, message, status = null } = error;
    return { id, error: { name, message, status }, created };
  }
}

export async function serve(root, prepare = (_, args) => args) {
  const answers = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const reply = answer(root, prepare, JSON.parse(line));
    answers.push(reply.then((said) => process.stdout.write(`${JSON.stringify(said)}\n`)));
  }
  await Promise.all(answers);
  process.exit(); // the SDKs do not close what they no longer read: a thread's stream would keep us here for good
}
