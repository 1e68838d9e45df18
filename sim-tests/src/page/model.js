// What there is to draw, indexed: every item has a kind to filter by, lanes, a span, and text.
const run = JSON.parse(document.getElementById("run").textContent);
const MS = 1e6;

const KINDS = {
  write: ["writes", "done"], read: ["reads", "done"], wait: ["blocking queries", "done"],
  http: ["HTTP", "http"], forward: ["forwards", "forward"], vote: ["votes", "vote"], raft: ["appends", "raft"],
  heartbeat: ["heartbeats", "heartbeat"], connection: ["connections", "connection"],
  apply: ["log on servers", "ink"], disk: ["disk and log lines", "faint"],
};
const shown = Object.fromEntries(Object.keys(KINDS).map(kind => [kind, !["heartbeat", "connection", "disk"].includes(kind)]));
const hiddenLanes = new Set();

// Which switch governs a mark on a server; the rest is always shown.
const GOVERNS = { append: "apply", apply: "apply", checkpoint: "apply", disk: "disk", log: "disk", vote: "vote" };

const items = [];
function add(type, data, more) {
  const item = { type, data, at: more.at, until: more.until ?? more.at, lanes: more.lanes, kind: more.kind, text: more.text };
  item.low = item.text.toLowerCase();
  items.push(item);
  return item;
}

// An answer is of the kind of its request: of heartbeats, too.
const requestOf = new Map();
for (const message of run.calls) {
  if (!message.answer && message.call !== null && message.kind !== "connection") requestOf.set(message.call, message);
}
for (const message of run.calls) {
  const request = message.answer ? requestOf.get(message.call) : null;
  if (request) message.kind = request.text.includes("heartbeat") ? "heartbeat" : request.kind;
  else if (message.text.includes("heartbeat") && message.kind === "raft") message.kind = "heartbeat";
}

const name = lane => run.lanes[lane].name;
for (const fault of run.faults) {
  add("fault", fault, { at: fault.from, until: fault.until, lanes: fault.lanes, kind: null, text: fault.what });
}
const opItems = new Map();
for (const op of run.ops) {
  const text = `#${op.id} ${op.what} — ${op.outcome}`;
  opItems.set(op.id, add("op", op, { at: op.from, until: op.until, lanes: [op.lane], kind: op.doing, text }));
}
const callItems = new Map();
for (const message of run.calls) {
  const end = message.until ?? run.ended;
  const text = `${name(message.from)} → ${name(message.to)}: ${message.text}${message.lost ? ` — ${message.lost}` : ""}`;
  const item = add("message", message, { at: message.sent, until: end, lanes: [message.from, message.to], kind: message.kind, text });
  if (message.call !== null) callItems.set(message.call, [...(callItems.get(message.call) ?? []), item]);
}
for (const mark of run.marks) {
  add("mark", mark, { at: mark.at, lanes: [mark.lane], kind: GOVERNS[mark.kind] ?? null, text: `${name(mark.lane)} ${mark.text}` });
}
const violationItems = run.violations.map(it =>
  add("violation", it, { at: it.at, lanes: [], kind: null, text: `${it.invariant}: ${it.what}` }));
items.sort((a, b) => a.at - b.at);

// The call of each request: the first of its client's calls to that server that no earlier request took.
{
  const free = run.calls.filter(it => !it.answer && it.call !== null && run.lanes[it.from].kind !== "server");
  const taken = new Set();
  let first = 0;
  for (const op of run.ops) {
    while (first < free.length && (free[first].sent < op.from || taken.has(free[first].call))) first++;
    for (let place = first; place < free.length && free[place].sent <= op.from; place++) {
      const message = free[place];
      if (message.from === op.lane && message.to === op.to && !taken.has(message.call)) {
        op.call = message.call;
        taken.add(message.call);
        break;
      }
    }
  }
}

const named = new Set(run.violations.flatMap(it => it.ops));

// What belongs to an item: the messages of its call, the entry it became.
function related(item) {
  const also = new Set();
  if (!item) return also;
  const ofOp = op => {
    also.add(opItems.get(op.id));
    for (const it of callItems.get(op.call) ?? []) also.add(it);
    if (op.entry !== null) {
      for (const it of items) if (it.type === "mark" && ["append", "apply"].includes(it.data.kind) && it.data.number === op.entry) also.add(it);
    }
  };
  if (item.type === "op") ofOp(item.data);
  if (item.type === "violation") item.data.ops.forEach(id => opItems.has(id) && ofOp(opItems.get(id).data));
  if (item.type === "message" && item.data.call !== null) {
    for (const it of callItems.get(item.data.call)) also.add(it);
    const op = run.ops.find(it => it.call === item.data.call);
    if (op) ofOp(op);
  }
  if (item.type === "mark" && ["append", "apply"].includes(item.data.kind)) {
    for (const it of items) if (it.type === "mark" && ["append", "apply"].includes(it.data.kind) && it.data.number === item.data.number) also.add(it);
    const entry = run.log.find(it => it.entry === item.data.number);
    if (entry && entry.op !== null && opItems.has(entry.op)) also.add(opItems.get(entry.op));
  }
  also.delete(item);
  return also;
}

// How every server is at a moment.
function stateAt(time) {
  const servers = run.lanes.map((lane, place) => ({ lane: place, name: lane.name, kind: lane.kind })).filter(it => it.kind === "server");
  for (const server of servers) {
    Object.assign(server, { status: "follows", term: null, appended: null, applied: null, index: null });
    for (const mark of run.marks) {
      if (mark.at > time) break;
      if (mark.lane !== server.lane) continue;
      if (mark.kind === "vote" || mark.kind === "leader") server.term = Math.max(server.term ?? 0, mark.number);
      if (mark.kind === "append" || mark.kind === "truncate") server.appended = mark.number;
      if (mark.kind === "apply" || mark.kind === "snapshot") { server.applied = mark.number; server.index = mark.index; }
      if (mark.kind === "snapshot") server.appended = Math.max(server.appended ?? 0, mark.number);
    }
    for (const it of run.runs) {
      if (it.lane === server.lane && it.from <= time && time < it.until) {
        server.status = { leads: `leads term ${it.term}`, down: "is down", paused: "stands still" }[it.status];
        if (it.status !== "leads") break;
      }
    }
    if (!run.marks.some(it => it.lane === server.lane && it.at <= time)) server.status = "not there yet";
  }
  return servers;
}

function visible(item) {
  if (item.kind && !shown[item.kind]) return false;
  return !item.lanes.length || item.lanes.some(lane => !hiddenLanes.has(lane)) && (item.type !== "message" || item.lanes.every(lane => !hiddenLanes.has(lane)));
}

const seconds = ns => (ns / 1e9).toFixed(6) + " s";
function span(ns) {
  const [number, unit] = ns >= 1e9 ? [ns / 1e9, "s"] : ns >= 1e6 ? [ns / 1e6, "ms"] : [ns / 1e3, "µs"];
  return `${number.toPrecision(3)} ${unit}`;
}
