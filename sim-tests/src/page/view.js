// Hands on it: zoom, move, choose, filter, find.
const byId = id => document.getElementById(id);

function setView(from, until) {
  const whole = run.ended * 1.02;
  const size = Math.max(20_000, Math.min(until - from, whole));
  view.from = Math.max(-whole * .01, Math.min(from, whole - size));
  view.until = view.from + size;
  draw();
  listSoon();
}
function zoom(factor, at = (view.from + view.until) / 2) {
  setView(at - (at - view.from) * factor, at + (view.until - at) * factor);
}
function move(share) {
  const by = (view.until - view.from) * share;
  setView(view.from + by, view.until + by);
}
// Moves just as far as needed to see an item.
function reveal(item) {
  const size = view.until - view.from;
  if (item.at < view.from || item.at > view.until - size * .05) setView(item.at - size * .35, item.at + size * .65);
  const lane = item.lanes.map(it => lanesY[it]).find(Boolean);
  if (lane && (lane.top < view.top + RULER || lane.top + lane.size > view.top + height)) view.top = Math.max(0, lane.top - height / 2);
  draw();
}

let nextViolation = 0;
function toViolation(place = nextViolation) {
  const item = violationItems[place % Math.max(1, violationItems.length)];
  if (!item) return;
  nextViolation = place + 1;
  const ops = item.data.ops.map(id => opItems.get(id)).filter(Boolean);
  // An operation that waits for long need not be seen from its begin.
  const from = Math.min(item.at - 150 * MS, ...ops.map(it => Math.max(it.at, item.at - 2_500 * MS)));
  const until = Math.max(item.at, ...ops.map(it => Math.min(it.until, item.at + 800 * MS)));
  const margin = (until - from) * .12;
  setView(from - margin, until + margin);
  select(item);
  const low = ops.map(it => lanesY[it.lanes[0]]).find(Boolean);
  if (low && low.top + low.size > view.top + height) view.top = low.top - height / 3;
}

function select(item, time = item?.at) {
  view.selected = item;
  view.also = related(item);
  view.cursor = time ?? null;
  if (item?.lanes.length) view.lane = item.lanes[0];
  showDetails(item);
  showState(time ?? run.violations[0]?.at ?? 0);
  draw();
  listSoon();
}

// Text in which what can be looked at is a link.
function linked(text) {
  const out = document.createElement("span");
  let last = 0;
  for (const match of text.matchAll(/#(\d+)|operations? \[([\d, ]+)\]|\bentry (\d+)|(\d+\.\d{3,6})s\b/g)) {
    const item = match[1] ? opItems.get(+match[1])
      : match[3] ? items.find(it => it.type === "mark" && it.data.kind === "apply" && it.data.number === +match[3]) ?? items.find(it => it.type === "mark" && it.data.kind === "append" && it.data.number === +match[3])
      : null;
    const time = match[4] ? +match[4] * 1e9 : null;
    if (!item && time === null) continue;
    out.append(text.slice(last, match.index), link(match[0], () => {
      if (item) { select(item); reveal(item); return; }
      const size = view.until - view.from;
      setView(time - size / 2, time + size / 2);
      view.cursor = time;
      showState(time);
    }));
    last = match.index + match[0].length;
  }
  out.append(text.slice(last));
  return out;
}
function link(text, go) {
  const button = document.createElement("button");
  button.className = "link";
  button.textContent = text;
  button.onclick = go;
  return button;
}

function showDetails(item) {
  const box = byId("details");
  box.replaceChildren();
  const heading = document.createElement("h2");
  box.append(heading);
  if (!item) { heading.textContent = "Click on anything, or on a moment"; return; }
  const rows = document.createElement("dl");
  const row = (key, value) => {
    const [dt, dd] = ["dt", "dd"].map(tag => document.createElement(tag));
    dt.textContent = key;
    dd.append(...[value].flat().map(it => typeof it === "string" ? linked(it) : it));
    rows.append(dt, dd);
  };
  const toOp = id => opItems.has(id) && link(`#${id}`, () => { select(opItems.get(id)); reveal(opItems.get(id)); });
  const it = item.data;
  if (item.type === "violation") {
    heading.textContent = `Violated: ${it.invariant}`;
    row("what", it.what);
    row("shows at", seconds(it.at));
    for (const id of it.ops) if (opItems.has(id)) row("request", [toOp(id), ` ${opItems.get(id).data.what}`]);
  } else if (item.type === "op") {
    heading.textContent = `Request #${it.id} of ${name(it.lane)} to ${name(it.to)}`;
    row("asks", it.what);
    row("answer", it.outcome);
    row("sent", seconds(it.from));
    row("took", span(it.until - it.from));
    if (it.entry !== null) row("became", `entry ${it.entry}`);
    if (named.has(it.id)) row("violates", run.violations.filter(v => v.ops.includes(it.id)).map(v => v.invariant).join(", "));
  } else if (item.type === "message") {
    heading.textContent = `${it.answer ? "Answer" : "Message"} from ${name(it.from)} to ${name(it.to)}`;
    row("says", it.text);
    row("sent", seconds(it.sent));
    row(it.lost ? "lost" : "arrives", it.lost ? `${it.lost}, at ${seconds(it.until)}` : it.until === null ? "not before the end" : `${seconds(it.until)}, after ${span(it.until - it.sent)}`);
    const op = run.ops.find(op => op.call === it.call && it.call !== null);
    if (op) row("of request", toOp(op.id));
  } else if (item.type === "fault") {
    heading.textContent = "Fault";
    row("what", it.what);
    row("from", seconds(it.from));
    row("lasts", span(it.until - it.from));
  } else {
    heading.textContent = name(it.lane);
    row("does", it.text);
    row("at", seconds(it.at));
    const entry = ["append", "apply"].includes(it.kind) && run.log.find(entry => entry.entry === it.number);
    if (entry) {
      row("entry says", entry.what);
      row("term", String(entry.term));
      row("first applied", seconds(entry.applied));
      if (entry.op !== null && opItems.has(entry.op)) row("by request", toOp(entry.op));
    }
  }
  box.append(rows);
}

function showState(time) {
  byId("when").textContent = `At ${seconds(time)}`;
  const table = byId("state");
  table.replaceChildren();
  const line = (cells, tag) => {
    const tr = table.insertRow();
    for (const cell of cells) tr.append(Object.assign(document.createElement(tag), { textContent: cell ?? "–" }));
  };
  line(["server", "", "term", "log", "applied", "index"], "th");
  for (const it of stateAt(time)) line([it.name, it.status, it.term, it.appended, it.applied, it.index], "td");
  const active = run.faults.filter(it => it.from <= time && time < it.until).map(it => Object.assign(document.createElement("li"), { textContent: `fault: ${it.what}` }));
  byId("active").replaceChildren(...active);
}

const LISTED = 250;
let listing = null;
function listSoon() {
  clearTimeout(listing);
  listing = setTimeout(() => {
    const here = items.filter(it => it.at >= view.from && it.at <= view.until && visible(it) && (!view.found || view.found.has(it)));
    const rows = here.slice(0, LISTED).map(item => {
      const li = document.createElement("li"), button = document.createElement("button");
      const at = Object.assign(document.createElement("span"), { className: "at", textContent: (item.at / 1e9).toFixed(6) });
      button.append(at);
      if (item.type === "op") button.append(Object.assign(document.createElement("span"), { className: "who", textContent: name(item.data.lane) }));
      button.append(item.type === "violation" ? `VIOLATED ${item.text}` : item.type === "fault" ? `FAULT ${item.text}` : item.text);
      button.setAttribute("aria-current", item === view.selected);
      button.onclick = () => { select(item); reveal(item); };
      li.append(button);
      return li;
    });
    if (here.length > LISTED) rows.push(Object.assign(document.createElement("li"), { textContent: `… and ${here.length - LISTED} more: zoom in` }));
    byId("list").replaceChildren(...rows);
  }, 120);
}

function find(text) {
  const low = text.trim().toLowerCase();
  view.found = low ? new Set(items.filter(it => it.low.includes(low) && visible(it))) : null;
  byId("found").textContent = view.found ? `${view.found.size} found` : "";
  draw();
  listSoon();
}
// From event to event: of what was found, or else of the chosen lane.
function step(direction) {
  const among = items.filter(it => visible(it) && it.type !== "violation" && (view.found ? view.found.has(it) : view.lane === null || it.lanes.includes(view.lane)));
  const here = view.selected ? among.indexOf(view.selected) : -1;
  const now = view.cursor ?? view.from;
  let place = here >= 0 ? here + direction : direction > 0 ? among.findIndex(it => it.at >= now) : among.findLastIndex(it => it.at <= now);
  const item = among[Math.max(0, Math.min(among.length - 1, place))];
  if (item) { select(item); reveal(item); }
}
function stepLane(direction) {
  const lanes = run.lanes.map((_, lane) => lane).filter(lane => !hiddenLanes.has(lane));
  const here = lanes.indexOf(view.lane);
  view.lane = lanes[Math.max(0, Math.min(lanes.length - 1, here + direction))];
  const at = lanesY[view.lane];
  if (at && (at.top - view.top < RULER || at.top + at.size - view.top > height)) view.top = Math.max(0, at.top - height / 2);
  draw();
}

// The item under the pointer: small things before large ones.
function itemAt(px, py) {
  const y = py + view.top;
  let best = null, least = 7;
  for (const hit of hits) {
    if (hit.line) {
      const [x1, y1, x2, y2] = hit.line, dx = x2 - x1, dy = y2 - y1;
      const share = Math.max(0, Math.min(1, ((px - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
      const far = Math.hypot(px - x1 - share * dx, y - y1 - share * dy);
      if (far < least) { least = far; best = hit.item; }
    } else {
      const top = hit.fixed ? py : y;
      if (px >= hit.left - 1 && px <= hit.right + 1 && top >= hit.top && top <= hit.bottom) {
        const far = hit.weak ? 6 : hit.item.type === "mark" ? 1 : 2.5;
        if (far < least) { least = far; best = hit.item; }
      }
    }
  }
  return best;
}

let drag = null;
canvas.addEventListener("pointerdown", event => {
  drag = { x: event.offsetX, y: event.offsetY, from: view.from, until: view.until, top: view.top, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", event => {
  const tip = byId("tip");
  if (drag) {
    const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
    if (Math.hypot(dx, dy) > 4) drag.moved = true;
    if (drag.moved) {
      canvas.classList.add("dragging");
      const by = dx / (width - GUTTER) * (drag.until - drag.from);
      view.top = Math.max(0, drag.top - dy);
      setView(drag.from - by, drag.until - by);
    }
    tip.hidden = true;
    return;
  }
  const item = itemAt(event.offsetX, event.offsetY);
  tip.hidden = !item;
  if (item) {
    tip.textContent = `${seconds(item.at)}  ${item.text.slice(0, 300)}`;
    tip.style.left = Math.min(event.offsetX + 14, width - 300) + "px";
    tip.style.top = event.offsetY + 18 + "px";
  }
});
canvas.addEventListener("pointerup", event => {
  canvas.classList.remove("dragging");
  if (drag && !drag.moved) {
    if (event.offsetX < GUTTER) {
      const lane = lanesY.findIndex(at => at && event.offsetY + view.top >= at.top && event.offsetY + view.top < at.top + at.size);
      view.lane = lane < 0 ? null : lane;
      draw();
    } else {
      const item = itemAt(event.offsetX, event.offsetY);
      select(item, item ? item.at : timeAt(event.offsetX));
    }
  }
  drag = null;
});
canvas.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
canvas.addEventListener("dblclick", event => zoom(.3, timeAt(event.offsetX)));
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  if (event.altKey) { view.top = Math.max(0, view.top + event.deltaY); draw(); }
  else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move((event.deltaX || event.deltaY) / 1200);
  else zoom(Math.exp(event.deltaY / 400), timeAt(event.offsetX));
}, { passive: false });

function overviewTo(event) {
  const time = (event.offsetX - GUTTER) / (overview.clientWidth - GUTTER) * run.ended, half = (view.until - view.from) / 2;
  setView(time - half, time + half);
}
overview.addEventListener("pointerdown", event => { overview.setPointerCapture(event.pointerId); overviewTo(event); });
overview.addEventListener("pointermove", event => { if (event.buttons) overviewTo(event); });

const KEYS = {
  "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1.6), "0": () => setView(0, run.ended),
  ArrowLeft: () => move(-.15), ArrowRight: () => move(.15), ArrowUp: () => stepLane(-1), ArrowDown: () => stepLane(1),
  Home: () => setView(0, view.until - view.from), End: () => setView(run.ended - (view.until - view.from), run.ended),
  v: () => toViolation(), n: () => step(1), p: () => step(-1), "?": () => byId("help").click(),
  "/": () => byId("find").focus(), Escape: () => { byId("find").value = ""; find(""); select(null); },
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input");
  if (typing && event.key === "Enter") { step(event.shiftKey ? -1 : 1); event.preventDefault(); return; }
  if (typing && event.key !== "Escape") return;
  if (event.key.startsWith("Arrow") && event.target.closest?.("aside")) return;
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});

function toggle(pressed, label, swatch, change) {
  const button = document.createElement("button");
  button.setAttribute("aria-pressed", pressed);
  if (swatch) button.append(Object.assign(document.createElement("span"), { className: "swatch", style: `background: var(--${swatch})` }));
  button.append(label);
  button.onclick = () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    change(on);
    draw();
    listSoon();
  };
  return button;
}

function samples() {
  const draws = [
    ["leads a term; each term has its colour", pen => { pen.fillStyle = termColor(2, .3); pen.fillRect(0, 2, 46, 13); pen.fillStyle = termColor(2, 1); pen.fillRect(0, 15, 46, 3); }],
    ["a fault, and whom it concerns", pen => { pen.globalAlpha = .22; pen.fillStyle = colors.fault; pen.fillRect(0, 3, 46, 14); pen.globalAlpha = 1; pen.fillRect(0, 3, 3, 14); }],
    ["is down", pen => hatch(pen, 0, 1, 46, 18, colors.down, 9)],
    ["stands still", pen => hatch(pen, 0, 1, 46, 18, colors.paused, 16)],
    ["a message; an answer is dashed", pen => { pen.strokeStyle = colors.raft; pen.beginPath(); pen.moveTo(2, 3); pen.lineTo(22, 17); pen.stroke(); pen.setLineDash([5, 3]); pen.beginPath(); pen.moveTo(24, 17); pen.lineTo(44, 3); pen.stroke(); pen.setLineDash([]); }],
    ["a message that was lost", pen => { pen.strokeStyle = colors.bad; pen.beginPath(); pen.moveTo(4, 2); pen.lineTo(24, 12); pen.moveTo(20, 8); pen.lineTo(28, 16); pen.moveTo(28, 8); pen.lineTo(20, 16); pen.stroke(); }],
    ["votes (by term)", pen => { pen.fillStyle = termColor(2, 1); pen.beginPath(); pen.moveTo(22, 4); pen.lineTo(28, 10); pen.lineTo(22, 16); pen.lineTo(16, 10); pen.fill(); }],
    ["appends an entry · applies one", pen => { pen.fillStyle = pen.strokeStyle = colors.ink; pen.beginPath(); pen.moveTo(12, 8); pen.lineTo(12, 17); pen.stroke(); pen.beginPath(); pen.arc(32, 9, 3.5, 0, 7); pen.fill(); }],
    ["takes entries back · installs a snapshot", pen => { pen.strokeStyle = colors.bad; pen.lineWidth = 2.5; pen.beginPath(); pen.moveTo(8, 5); pen.lineTo(18, 15); pen.moveTo(18, 5); pen.lineTo(8, 15); pen.stroke(); pen.fillStyle = colors.accent; pen.fillRect(28, 5, 10, 10); }],
    ...["done", "refused", "failed", "unknown", "nonsense"].map(verdict => [{ done: "a request that succeeds", refused: "refused by a rule", failed: "failed, nothing was done", unknown: "nobody knows whether it was done", nonsense: "an answer without sense" }[verdict], pen => { pen.globalAlpha = .75; pen.fillStyle = colors[verdict]; pen.fillRect(0, 4, 46, 13); if (verdict === "unknown") hatch(pen, 0, 4, 46, 13, colors.paper, 6); }]),
    ["a blocking query · a write", pen => { pen.fillStyle = colors.done; pen.globalAlpha = .35; pen.fillRect(0, 4, 21, 13); pen.globalAlpha = .75; pen.fillRect(25, 4, 21, 13); pen.globalAlpha = 1; pen.fillRect(25, 4, 21, 3); }],
    ["named by the violation", pen => { pen.strokeStyle = colors.bad; pen.lineWidth = 2; pen.strokeRect(2, 4, 42, 13); }],
  ];
  byId("samples").replaceChildren(...draws.map(([text, paintSample]) => {
    const li = document.createElement("li"), sample = document.createElement("canvas");
    sample.width = 92; sample.height = 40;
    const pen = sample.getContext("2d");
    pen.scale(2, 2);
    paintSample(pen);
    li.append(sample, text);
    return li;
  }));
}

function begin() {
  readColors();
  byId("title").textContent = `${run.title}: ${seconds(run.ended)} simulated, ${run.ops.length} requests, ${run.calls.length} messages, ${run.log.length} log entries`;
  const verdicts = violationItems.map((item, place) => {
    const box = Object.assign(document.createElement("div"), { className: "verdict bad" });
    const show = document.createElement("button");
    show.textContent = "Show";
    show.onclick = () => { toViolation(place); canvas.focus(); };
    box.append(Object.assign(document.createElement("b"), { textContent: item.data.invariant }), linked(item.data.what), show);
    return box;
  });
  if (!verdicts.length) {
    const box = Object.assign(document.createElement("div"), { className: "verdict good" });
    box.append(Object.assign(document.createElement("b"), { textContent: "All invariants hold" }));
    verdicts.push(box);
    byId("violation").disabled = true;
  }
  // The first ones explain those after them.
  byId("verdict").append(...verdicts.slice(0, 1));
  if (verdicts.length > 1) {
    const more = document.createElement("details");
    more.append(Object.assign(document.createElement("summary"), { textContent: `${verdicts.length - 1} more, which may follow from it: ${run.violations.slice(1).map(it => it.invariant).join(", ")}` }), ...verdicts.slice(1));
    byId("verdict").append(more);
  }
  byId("kinds").append(...Object.entries(KINDS).map(([kind, [label, swatch]]) =>
    toggle(shown[kind], label, swatch, on => { shown[kind] = on; })));
  byId("lanes").querySelector("div").append(...run.lanes.map((lane, place) =>
    toggle(true, lane.name, null, on => on ? hiddenLanes.delete(place) : hiddenLanes.add(place))));
  byId("in").onclick = () => zoom(.5);
  byId("out").onclick = () => zoom(2);
  byId("fit").onclick = () => setView(0, run.ended);
  byId("violation").onclick = () => toViolation();
  byId("find").oninput = event => find(event.target.value);
  byId("help").onclick = () => {
    const legend = byId("legend");
    legend.hidden = !legend.hidden;
    byId("help").setAttribute("aria-expanded", !legend.hidden);
    samples();
  };
  const repaint = () => { readColors(); draw(); };
  byId("theme").onclick = () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim() !== "#ffffff";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    repaint();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  new ResizeObserver(draw).observe(byId("stage"));
  // A part of a page's address names what to show: #from=1.2&until=1.5 in seconds.
  const asked = new URLSearchParams(location.hash.slice(1));
  paint();
  select(null);
  if (asked.has("from")) setView(+asked.get("from") * 1e9, +asked.get("until") * 1e9);
  else if (violationItems.length) toViolation(0);
  else setView(0, run.ended);
  if (asked.has("select")) { const item = opItems.get(+asked.get("select")); if (item) select(item); }
  canvas.focus();
}
begin();
