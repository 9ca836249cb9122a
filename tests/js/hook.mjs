// Uses `useStream` of one of the JavaScript SDKs for a test, as a page does: node tests/js/hook.mjs <sdk> <base url>
//
// The calls are those of lines.mjs. `mount` shows a component that uses the hook; `state` is what it shows now, `seen`
// everything it has shown since it was mounted. Mounting again is another page in its place; but a page that is loaded
// anew, with nothing left of the old one but what it has `stored`, is a new process.

import { JSDOM } from "jsdom";
import { serve } from "./lines.mjs";

const [sdk, apiUrl] = process.argv.slice(2);
const { window } = new JSDOM("<div id='root'></div>", { url: "http://page.example/", pretendToBeVisual: true });
Object.assign(globalThis, { window, document: window.document });

const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useStream } = await import(`${sdk}/react`);

let page; // the one that is mounted: the root, the hook, and what it has seen and was told

/** What a page can show of the hook. */
function shown(hook, keepsHistory) {
  const { messages, values, isLoading, isThreadLoading, error, interrupt, branch } = hook;
  return {
    messages: messages.map(({ type, content }) => [type, content]),
    values,
    isLoading,
    isThreadLoading,
    error: error == null ? null : String(error.message ?? error),
    interrupt: interrupt?.value ?? interrupt ?? null,
    branch,
    branches: messages.map((message, index) => page.hook.getMessagesMetadata(message, index)?.branchOptions ?? null),
    history: keepsHistory ? hook.history.map((state) => state.checkpoint?.checkpoint_id) : null,
  };
}

function Page({ page, options }) {
  const { seen, told } = page;
  const hook = useStream({
    apiUrl,
    callerOptions: { maxRetries: 0 },
    ...options,
    onThreadId: (threadId) => told.push(["threadId", threadId]),
    onCreated: (run) => told.push(["created", run]),
    onError: (error) => told.push(["error", String(error.message ?? error)]),
    ...(options.fetchStateHistory ? { onFinish: (state) => told.push(["finish", state.values]) } : {}),
    onStop: () => told.push(["stop"]),
  });
  page.hook = hook;
  seen.push(shown(hook, Boolean(options.fetchStateHistory)));
  return null;
}

await serve({
  mount(options, stored = {}) {
    page?.root.unmount();
    window.sessionStorage.clear();
    for (const [key, value] of Object.entries(stored)) window.sessionStorage.setItem(key, value);
    page = { root: createRoot(window.document.getElementById("root")), seen: [], told: [] };
    page.root.render(createElement(Page, { page, options }));
  },
  submit: (values, options) => void page.hook.submit(values, options).catch(() => {}),
  stop: () => page.hook.stop(),
  joinStream: (runId, lastEventId) => void page.hook.joinStream(runId, lastEventId),
  setBranch: (branch) => page.hook.setBranch(branch),
  /** Answer the message at that place anew: a run from the checkpoint before it was first seen. */
  regenerate(place) {
    const { firstSeenState } = page.hook.getMessagesMetadata(page.hook.messages[place], place);
    void page.hook.submit(undefined, { checkpoint: firstSeenState.parent_checkpoint });
  },
  state: () => page.seen.at(-1) ?? null,
  seen: () => page.seen,
  told: () => page.told,
  stored: () => ({ ...window.sessionStorage }),
});
process.exit();
