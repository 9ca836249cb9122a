// Calls RemoteGraph for a test: node tests/js/remote.mjs <base url>
//
// The calls are those of lines.mjs: "nested.invoke" is a method of the remote graph `nested`, and "around:nested.invoke"
// one of a graph of our own that has it as its node. An argument {"$command": {...}} is a Command.

import { Annotation, Command, MemorySaver, START, StateGraph } from "@langchain/langgraph";
import { RemoteGraph } from "@langchain/langgraph/remote";
import { serve } from "./lines.mjs";

const [url] = process.argv.slice(2);
const made = {};

function make(name) {
  const remote = new RemoteGraph({ graphId: name.replace("around:", ""), url });
  if (!name.startsWith("around:")) return remote;
  const state = Annotation.Root({ x: Annotation, log: Annotation, question: Annotation, answer: Annotation });
  return new StateGraph(state)
    .addNode("there", remote)
    .addEdge(START, "there")
    .compile({ checkpointer: new MemorySaver() });
}

const graphs = new Proxy({}, { get: (_, name) => (made[name] ??= make(name)) });

await serve(graphs, (_, args) => args.map((each) => (each?.$command ? new Command(each.$command) : each)));
