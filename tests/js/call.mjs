// Calls one of the JavaScript SDKs for a test: node tests/js/call.mjs <sdk-1.15|sdk-2.0> <base url> [options JSON]
//
// The calls are those of lines.mjs.

import { serve } from "./lines.mjs";

const [sdk, apiUrl, options = "{}"] = process.argv.slice(2);
const { Client } = await import(sdk);
const client = new Client({ apiUrl, callerOptions: { maxRetries: 0 }, ...JSON.parse(options) });

function prepare(path, args, created) {
  if (/^runs\.(create|stream|wait)$/.test(path)) args[2] = { ...args[2], onRunCreated: (run) => created.push(run) };
  return args;
}

await serve(client, prepare);
