// The picture: faults on top, then a lane for each server and client.
const canvas = document.getElementById("canvas"), overview = document.getElementById("overview");
const view = { from: 0, until: run.ended, top: 0, selected: null, lane: null, cursor: null, also: new Set(), found: null };
const GUTTER = 92, RULER = 26, FAULT_ROW = 18, THIN_LANE = 26;
let colors = {}, hits = [], lanesY = [], contentHeight = 0, width = 0, height = 0;

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const key of ["paper", "ink", "faint", "line", "panel", "stripe", "bad", "bad-soft", "fault", "down", "paused", "accent", "select",
    "done", "refused", "failed", "unknown", "nonsense", "raft", "heartbeat", "vote", "forward", "http", "connection"]) {
    colors[key] = style.getPropertyValue(`--${key}`).trim();
  }
}
// Terms that follow each other differ well.
const termColor = (term, alpha) => `hsl(${(term * 137 + 200) % 360} 65% 50% / ${alpha})`;
const x = time => GUTTER + (time - view.from) / (view.until - view.from) * (width - GUTTER);
const timeAt = px => view.from + (px - GUTTER) / (width - GUTTER) * (view.until - view.from);

// Puts spans that overlap into rows of their own.
function pack(spans) {
  const ends = [];
  for (const it of spans) {
    let row = ends.findIndex(end => end <= it.at);
    if (row < 0) row = ends.length;
    ends[row] = it.until;
    it.row = row;
  }
  return ends.length;
}
const faultItems = items.filter(it => it.type === "fault");
const faultRows = Math.max(1, pack(faultItems));
const laneRows = run.lanes.map((_, lane) => Math.max(1, pack(items.filter(it => it.type === "op" && it.lanes[0] === lane))));

function layout() {
  const lanes = run.lanes.map((_, lane) => lane).filter(lane => !hiddenLanes.has(lane));
  const heads = RULER + faultRows * FAULT_ROW + 8;
  const of = kind => lanes.filter(lane => run.lanes[lane].kind === kind);
  const rows = of("client").reduce((sum, lane) => sum + laneRows[lane], 0);
  const thin = (lanes.length - of("client").length - of("server").length) * THIN_LANE;
  // What room there is goes to the bars first, as far as they need it to be read, and then to the servers.
  const servers = Math.max(1, of("server").length);
  const room = height - heads - thin - of("client").length * 10;
  const row = Math.max(9, Math.min(17, Math.floor((room - servers * 76) / Math.max(rows, 1))));
  const tall = Math.max(76, Math.min(150, (room - rows * row) / servers));
  let y = heads;
  lanesY = run.lanes.map(() => null);
  for (const lane of lanes) {
    const kind = run.lanes[lane].kind;
    const size = kind === "server" ? tall : kind === "client" ? laneRows[lane] * row + 10 : THIN_LANE;
    lanesY[lane] = { top: y, size, row, middle: y + (kind === "server" ? size * .56 : kind === "client" ? 4 : size / 2) };
    y += size;
  }
  contentHeight = y;
  view.top = Math.max(0, Math.min(view.top, contentHeight - height));
}

function fitCanvas(element) {
  const ratio = window.devicePixelRatio || 1, box = element.getBoundingClientRect();
  element.width = Math.round(box.width * ratio);
  element.height = Math.round(box.height * ratio);
  const context = element.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, box.width, box.height];
}

let queued = false;
function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; paint(); });
}

function paint() {
  let pen;
  [pen, width, height] = fitCanvas(canvas);
  layout();
  hits = [];
  pen.fillStyle = colors.paper;
  pen.fillRect(0, 0, width, height);
  pen.save();
  pen.translate(0, -view.top);
  paintLanes(pen);
  paintFaults(pen);
  paintRuns(pen);
  paintOps(pen);
  labels = [];
  const words = paintMessages(pen);
  paintMarks(pen);
  paintViolations(pen);
  words.forEach(it => label(pen, ...it));
  pen.restore();
  paintGutter(pen);
  paintRuler(pen);
  paintOverview();
}

const inView = item => item.until >= view.from && item.at <= view.until;
function strength(item) {
  if (view.selected) return item === view.selected || view.also.has(item) ? 1 : view.selected.type === "violation" ? .7 : .4;
  if (view.found) return view.found.has(item) ? 1 : .15;
  return 1;
}
function write(pen, text, left, top, room, color, font = "12px system-ui, sans-serif") {
  pen.font = font;
  if (room < 14) return;
  let shownText = text;
  if (pen.measureText(text).width > room) {
    const letters = Math.floor(room / 6.2);
    if (letters < 3) return;
    shownText = text.slice(0, letters - 1) + "…";
  }
  pen.fillStyle = color;
  pen.fillText(shownText, left, top);
}

function paintLanes(pen) {
  lanesY.forEach((at, lane) => {
    if (!at) return;
    pen.fillStyle = lane % 2 ? colors.stripe : colors.paper;
    pen.fillRect(GUTTER, at.top, width, at.size);
    pen.strokeStyle = colors.line;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, at.top + .5);
    pen.lineTo(width, at.top + .5);
    if (run.lanes[lane].kind === "server") { pen.moveTo(GUTTER, at.middle); pen.lineTo(width, at.middle); }
    pen.stroke();
  });
  if (run.healed < run.ended) {
    pen.fillStyle = colors.faint;
    pen.globalAlpha = .06;
    pen.fillRect(x(run.healed), RULER, width, contentHeight);
    pen.globalAlpha = 1;
  }
}

function paintFaults(pen) {
  for (const item of faultItems) {
    if (!inView(item) || !visible(item)) continue;
    const left = Math.max(GUTTER, x(item.at)), right = Math.max(left + 2, Math.min(width, x(item.until)));
    const top = RULER + 3 + item.row * FAULT_ROW;
    pen.globalAlpha = strength(item);
    pen.fillStyle = colors.fault;
    pen.globalAlpha *= .22;
    pen.fillRect(left, top, right - left, FAULT_ROW - 3);
    for (const lane of item.lanes.length ? item.lanes : []) {
      const at = lanesY[lane];
      if (at) { pen.globalAlpha = .13 * strength(item); pen.fillRect(left, at.top + 1, right - left, at.size - 1); }
    }
    pen.globalAlpha = strength(item);
    pen.fillRect(left, top, 3, FAULT_ROW - 3);
    for (const lane of item.lanes) {
      const at = lanesY[lane];
      if (at) pen.fillRect(left, at.top + 1, right - left, 2);
    }
    const next = Math.min(...faultItems.filter(it => it.row === item.row && it.at > item.at).map(it => x(it.at)), width);
    write(pen, item.data.what, left + 7, top + 12, next - left - 12, colors.ink);
    if (item === view.selected) { pen.strokeStyle = colors.select; pen.lineWidth = 2; pen.strokeRect(left, top, right - left, FAULT_ROW - 3); }
    hits.push({ item, left, right: Math.max(right, left + 8), top, bottom: top + FAULT_ROW });
    pen.globalAlpha = 1;
  }
}

function hatch(pen, left, top, wide, high, color, step) {
  pen.save();
  pen.beginPath();
  pen.rect(left, top, wide, high);
  pen.clip();
  pen.strokeStyle = color;
  pen.lineWidth = 1;
  pen.beginPath();
  for (let at = Math.floor((left - high) / step) * step; at < left + wide; at += step) { pen.moveTo(at, top + high); pen.lineTo(at + high, top); }
  pen.stroke();
  pen.restore();
}

function paintRuns(pen) {
  for (const it of run.runs) {
    const at = lanesY[it.lane];
    if (!at || it.until < view.from || it.from > view.until) continue;
    const left = Math.max(GUTTER, x(it.from)), right = Math.min(width, x(it.until)), wide = Math.max(1, right - left);
    if (it.status === "leads") {
      pen.fillStyle = termColor(it.term, .3);
      pen.fillRect(left, at.top + 5, wide, 18);
      pen.fillStyle = termColor(it.term, 1);
      pen.fillRect(left, at.top + 21, wide, 3);
      write(pen, `leads term ${it.term}`, left + 6, at.top + 17, wide - 8, colors.ink, "600 12px system-ui, sans-serif");
    } else {
      const color = colors[it.status];
      pen.globalAlpha = .16;
      pen.fillStyle = color;
      pen.fillRect(left, at.top + 1, wide, at.size - 1);
      pen.globalAlpha = .55;
      hatch(pen, left, at.top + 1, wide, at.size - 1, color, it.status === "down" ? 9 : 16);
      pen.globalAlpha = 1;
      write(pen, it.text, left + 6, at.top + at.size - 8, wide - 8, colors.ink);
    }
  }
}

function paintOps(pen) {
  for (const item of items) {
    if (item.type !== "op" || !inView(item) || !visible(item)) continue;
    const op = item.data, at = lanesY[op.lane];
    if (!at) continue;
    const left = Math.max(GUTTER - 4, x(item.at)), right = Math.min(width + 4, Math.max(x(item.at) + 2, x(item.until)));
    const top = at.top + 4 + item.row * at.row, high = at.row - 2;
    pen.globalAlpha = strength(item) * (op.doing === "wait" ? .26 : .48);
    pen.fillStyle = colors[op.verdict];
    pen.fillRect(left, top, right - left, high);
    pen.globalAlpha = strength(item);
    if (op.doing === "write") pen.fillRect(left, top, right - left, 3);
    if (op.verdict === "unknown") hatch(pen, left, top, right - left, high, colors.paper, 6);
    if (high >= 13) write(pen, `#${op.id} ${op.what} → ${name(op.to)}: ${op.outcome}`, Math.max(left, GUTTER) + 4, top + high - 3.5, right - Math.max(left, GUTTER) - 6, colors.ink);
    if (named.has(op.id)) { pen.strokeStyle = colors.bad; pen.lineWidth = 2; pen.strokeRect(left - 1, top - 1, right - left + 2, high + 2); }
    if (item === view.selected) { pen.strokeStyle = colors.select; pen.lineWidth = 2.5; pen.strokeRect(left - 2, top - 2, right - left + 4, high + 4); }
    hits.push({ item, left, right, top, bottom: top + high });
    pen.globalAlpha = 1;
  }
}

// Where an arrow meets a lane: at a client, at its request's bar.
function anchor(lane, message) {
  const at = lanesY[lane];
  if (run.lanes[lane].kind !== "client") return at.middle;
  const op = run.ops.find(it => it.call === message.call && it.lane === lane);
  const row = op ? opItems.get(op.id).row : 0;
  return at.top + 4 + row * at.row + at.row / 2;
}

function paintMessages(pen) {
  const drawn = items.filter(it => it.type === "message" && inView(it) && visible(it) && it.data.from !== it.data.to);
  const labelled = drawn.length <= 160, words = [];
  for (const item of drawn) {
    const it = item.data;
    if (!lanesY[it.from] || !lanesY[it.to]) continue;
    if (it.y === undefined || it.layout !== contentHeight) { it.y = [anchor(it.from, it), anchor(it.to, it)]; it.layout = contentHeight; }
    let [y1, y2] = it.y, x1 = x(it.sent), x2 = x(it.until ?? run.ended);
    if (it.lost) { y2 = y1 + (y2 - y1) * .55; x2 = x1 + (x2 - x1) * .55; }
    const color = it.lost ? colors.bad : colors[it.kind];
    const strong = item === view.selected || view.also.has(item);
    pen.globalAlpha = strength(item) * (strong ? 1 : drawn.length > 1500 ? .25 : drawn.length > 400 ? .5 : .85);
    pen.strokeStyle = pen.fillStyle = item === view.selected ? colors.select : color;
    pen.lineWidth = strong ? 2.2 : 1.1;
    pen.setLineDash(it.answer ? [5, 3] : []);
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
    pen.stroke();
    pen.setLineDash([]);
    if (it.lost) {
      pen.beginPath();
      pen.moveTo(x2 - 4, y2 - 4); pen.lineTo(x2 + 4, y2 + 4); pen.moveTo(x2 + 4, y2 - 4); pen.lineTo(x2 - 4, y2 + 4);
      pen.lineWidth = 1.8;
      pen.stroke();
    } else if (drawn.length < 900 || strong) {
      const angle = Math.atan2(y2 - y1, x2 - x1);
      pen.beginPath();
      pen.moveTo(x2, y2);
      pen.lineTo(x2 - 7 * Math.cos(angle - .4), y2 - 7 * Math.sin(angle - .4));
      pen.lineTo(x2 - 7 * Math.cos(angle + .4), y2 - 7 * Math.sin(angle + .4));
      pen.fill();
    }
    hits.push({ item, line: [x1, y1, x2, y2] });
    if ((labelled || item === view.selected) && strength(item) > .5) words.push([it, x1, y1, x2, y2, color]);
    pen.globalAlpha = 1;
  }
  return words;
}

let labels = [];
function label(pen, it, x1, y1, x2, y2, color) {
  pen.font = "11px system-ui, sans-serif";
  const text = it.lost ? `${it.text} — ${it.lost}` : it.text;
  const cut = text.length > 58 ? text.slice(0, 57) + "…" : text;
  const wide = pen.measureText(cut).width + 6;
  let left, top;
  const free = [.5, .35, .65, .2, .8, .1, .9].some(share => {
    left = x1 + (x2 - x1) * share + 5;
    top = y1 + (y2 - y1) * share - 5;
    return left >= GUTTER && left < width - 30 && !labels.some(box => left < box[0] + box[2] && box[0] < left + wide && Math.abs(box[1] - top) < 14);
  });
  if (!free) return;
  labels.push([left, top, wide]);
  pen.globalAlpha = .88;
  pen.fillStyle = colors.paper;
  pen.fillRect(left - 3, top - 2, wide, 14);
  pen.globalAlpha = 1;
  pen.fillStyle = color;
  pen.fillText(cut, left, top + 9);
}

function paintMarks(pen) {
  const drawn = items.filter(it => it.type === "mark" && it.at >= view.from && it.at <= view.until && visible(it));
  const words = drawn.length < 90;
  const used = lanesY.map(() => [-1e9, -1e9]);
  for (const item of drawn) {
    const mark = item.data, at = lanesY[mark.lane];
    if (!at) continue;
    const px = x(item.at), y = at.middle;
    const strong = item === view.selected || view.also.has(item);
    pen.globalAlpha = strength(item);
    pen.fillStyle = pen.strokeStyle = item === view.selected ? colors.select : colors.ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let below = true;
    switch (mark.kind) {
      case "append": pen.moveTo(px, y); pen.lineTo(px, y + 9); pen.stroke(); break;
      case "apply": pen.arc(px, y, strong ? 4.5 : 3, 0, 7); pen.fill(); below = false; break;
      case "vote": pen.fillStyle = termColor(mark.number, 1); pen.moveTo(px, y - 13); pen.lineTo(px + 5, y - 8); pen.lineTo(px, y - 3); pen.lineTo(px - 5, y - 8); pen.fill(); below = false; break;
      case "leader": pen.fillStyle = termColor(mark.number, 1); pen.fillRect(px, at.top + 5, 3, y - at.top - 5); below = false; break;
      case "truncate": pen.strokeStyle = colors.bad; pen.lineWidth = 2.5; pen.moveTo(px - 5, y - 5); pen.lineTo(px + 5, y + 5); pen.moveTo(px + 5, y - 5); pen.lineTo(px - 5, y + 5); pen.stroke(); break;
      case "snapshot": pen.fillStyle = colors.accent; pen.fillRect(px - 5, y - 5, 10, 10); break;
      case "checkpoint": pen.strokeRect(px - 3, y + 5, 6, 6); break;
      case "process": pen.fillRect(px - 1, at.top + 3, 2, at.size - 6); break;
      default: pen.fillStyle = colors.faint; pen.fillRect(px, y + 16, 1, 6);
    }
    const place = below ? 1 : 0;
    if ((words || strong) && mark.kind !== "leader" && px > used[mark.lane][place]) {
      const text = mark.text.length > 46 ? mark.text.slice(0, 45) + "…" : mark.text;
      pen.font = "11px system-ui, sans-serif";
      pen.fillStyle = mark.kind === "truncate" ? colors.bad : colors.ink;
      pen.fillText(text, px + 6, below ? y + 21 : y - 6);
      const wide = pen.measureText(text).width;
      used[mark.lane][place] = px + 12 + wide;
      labels.push([px + 6, (below ? y + 21 : y - 6) - 9, wide]);
    }
    hits.push({ item, left: px - 5, right: px + 5, top: below ? y : y - 13, bottom: below ? y + 24 : y + 5 });
    pen.globalAlpha = 1;
  }
}

function paintViolations(pen) {
  for (const item of violationItems) {
    if (item.at < view.from || item.at > view.until) continue;
    const px = x(item.at);
    pen.strokeStyle = colors.bad;
    pen.lineWidth = item === view.selected ? 3 : 2;
    pen.setLineDash([7, 4]);
    pen.beginPath();
    pen.moveTo(px, RULER);
    pen.lineTo(px, contentHeight);
    pen.stroke();
    pen.setLineDash([]);
    hits.push({ item, left: px - 5, right: px + 5, top: 0, bottom: contentHeight, weak: true });
  }
  if (view.cursor !== null) {
    pen.strokeStyle = colors.select;
    pen.lineWidth = 1;
    pen.globalAlpha = .6;
    pen.beginPath();
    pen.moveTo(x(view.cursor), RULER);
    pen.lineTo(x(view.cursor), contentHeight);
    pen.stroke();
    pen.globalAlpha = 1;
  }
}

function paintGutter(pen) {
  pen.fillStyle = colors.panel;
  pen.fillRect(0, 0, GUTTER, height);
  pen.strokeStyle = colors.line;
  pen.strokeRect(-1, -1, GUTTER + .5, height + 2);
  write(pen, "faults", 10, RULER + 15 - view.top, GUTTER - 14, colors.faint);
  lanesY.forEach((at, lane) => {
    if (!at) return;
    const y = at.top - view.top, { kind, name } = run.lanes[lane];
    if (y + at.size < RULER) return;
    if (lane === view.lane) { pen.fillStyle = colors.select; pen.fillRect(0, y, 4, at.size); }
    write(pen, name, 10, y + (at.size > 40 ? 20 : 15), GUTTER - 14, colors.ink, "600 13px system-ui, sans-serif");
    if (at.size > 34) write(pen, kind === "other" ? "" : kind, 10, y + 35, GUTTER - 14, colors.faint);
  });
}

function paintRuler(pen) {
  pen.fillStyle = colors.panel;
  pen.fillRect(0, 0, width, RULER);
  const room = (width - GUTTER) / 110, wanted = (view.until - view.from) / room;
  const power = 10 ** Math.floor(Math.log10(wanted)), step = [1, 2, 5, 10].find(it => it * power >= wanted) * power;
  pen.font = "11.5px system-ui, sans-serif";
  for (let at = Math.ceil(view.from / step) * step; at <= view.until; at += step) {
    const px = x(at);
    pen.fillStyle = colors.line;
    pen.fillRect(px, RULER - 7, 1, 7);
    pen.globalAlpha = .35;
    pen.fillRect(px, RULER, 1, height);
    pen.globalAlpha = 1;
    pen.fillStyle = colors.faint;
    const digits = Math.max(0, Math.min(6, 9 - Math.floor(Math.log10(step))));
    pen.fillText(`${(at / 1e9).toFixed(digits)} s`, px + 4, 15);
  }
  for (const item of violationItems) {
    const px = x(item.at);
    if (px < GUTTER || px > width) continue;
    const text = `▼ ${item.data.invariant}`, wide = pen.measureText(text).width + 12;
    const left = Math.min(px - 7, width - wide);
    pen.fillStyle = colors.bad;
    pen.fillRect(left, 3, wide, 19);
    pen.fillStyle = colors.paper;
    pen.fillText(text, left + 5, 16);
    hits.unshift({ item, left, right: left + wide, top: 0, bottom: RULER, fixed: true });
  }
}

function paintOverview() {
  const [pen, wide, high] = fitCanvas(overview);
  const px = time => GUTTER + time / run.ended * (wide - GUTTER);
  pen.fillStyle = colors.panel;
  pen.fillRect(0, 0, wide, high);
  write(pen, "whole run", 10, 30, GUTTER, colors.faint);
  const servers = run.lanes.filter(it => it.kind === "server").length, row = (high - 14) / Math.max(servers, 1);
  for (const it of run.runs) {
    pen.fillStyle = it.status === "leads" ? termColor(it.term, .75) : colors[it.status];
    pen.fillRect(px(it.from), 4 + it.lane * row, Math.max(1, px(it.until) - px(it.from)), row - 1);
  }
  pen.fillStyle = colors.fault;
  for (const it of run.faults) pen.fillRect(px(it.from), high - 9, Math.max(1.5, px(it.until) - px(it.from)), 4);
  pen.fillStyle = colors.bad;
  for (const it of run.violations) { pen.fillRect(px(it.at) - 1, 0, 2.5, high); }
  const left = px(Math.max(0, view.from)), right = px(Math.min(run.ended, view.until));
  pen.fillStyle = colors.paper;
  pen.globalAlpha = .6;
  pen.fillRect(GUTTER, 0, left - GUTTER, high);
  pen.fillRect(right, 0, wide - right, high);
  pen.globalAlpha = 1;
  pen.strokeStyle = colors.select;
  pen.lineWidth = 1.5;
  pen.strokeRect(left, 1, Math.max(3, right - left), high - 2);
}
