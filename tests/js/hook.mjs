// Uses `useStream` of one of the JavaScript SDKs for a test, as a page does: node tests/js/hook.mjs <sdk> <base url>
//
// The calls are those of lines.mjs. `mount` shows a component that uses the hook; `state` is what it shows now, `seen`
// everything it has shown since it was mounted. A page that is loaded anew is a new process, with the `stored` of the
// old one given to `mount`.

import { JSDOM } from "jsdom";
import { serve } from "./lines.mjs";

const [sdk, apiUrl] = process.argv.slice(2);
const { window } = new JSDOM("<div id='root'></div>", { url: "http://page.example/", pretendToBeVisual: true });
Object.assign(globalThis, { window, document: window.document });

const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useStream } = await import(`${sdk}/react`);

let hook;
let root;
let seen = [];
let told = [];

/** What a page can show of the hook. */
function shown(keepsHistory) {
  const { messages, values, isLoading, isThreadLoading, error, interrupt, branch } = hook;
  return {
    messages: messages.map(({ type, content }) => [type, content]),
    values,
    isLoading,
    isThreadLoading,
    error: error == null ? null : String(error.message ?? error),
    interrupt: interrupt?.value ?? interrupt ?? null,
    branch,
    branches: messages.map((message, index) => hook.getMessagesMetadata(message, index)?.branchOptions ?? null),
    history: keepsHistory ? hook.history.map((state) => state.checkpoint?.checkpoint_id) : null,
  };
}

function Page({ options }) {
  hook = useStream({
    apiUrl,
    callerOptions: { maxRetries: 0 },
    ...options,
    onThreadId: (threadId) => told.push(["threadId", threadId]),
    onCreated: (run) => told.push(["created", run]),
    onError: (error) => told.push(["error", String(error.message ?? error)]),
    ...(options.fetchStateHistory ? { onFinish: (state) => told.push(["finish", state.values]) } : {}),
    onStop: () => told.push(["stop"]),
  });
  seen.push(shown(Boolean(options.fetchStateHistory)));
  return null;
}

await serve({
  mount(options, stored = {}) {
    for (const [key, value] of Object.entries(stored)) window.sessionStorage.setItem(key, value);
    root = createRoot(window.document.getElementById("root"));
    root.render(createElement(Page, { options }));
  },
  submit: (values, options) => void hook.submit(values, options).catch(() => {}),
  stop: () => hook.stop(),
  joinStream: (runId, lastEventId) => void hook.joinStream(runId, lastEventId),
  setBranch: (branch) => hook.setBranch(branch),
  /** Answer the message at that place anew: a run from the checkpoint before it was first seen. */
  regenerate(place) {
    const { firstSeenState } = hook.getMessagesMetadata(hook.messages[place], place);
    void hook.submit(undefined, { checkpoint: firstSeenState.parent_checkpoint });
  },
  state: () => seen.at(-1) ?? null,
  seen: () => seen,
  told: () => told,
  stored: () => ({ ...window.sessionStorage }),
});
root?.unmount();
process.exit();
