"use strict";
// Everything an agent or environment wrote reaches the page through textContent only.

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- values under the pointer ----

function attachHover(svg) {
  const data = JSON.parse(svg.dataset.hover);
  const figure = svg.parentNode;
  const points = data.series.flatMap((s) => s.points);
  let tip = null;
  let cursor = null;
  function hide() {
    if (tip) tip.remove();
    if (cursor) cursor.remove();
    tip = cursor = null;
  }
  function show(event) {
    hide();
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const at = (event.clientX - box.left) * scale;
    const nearest = points.reduce((a, b) => (Math.abs(b[2] - at) < Math.abs(a[2] - at) ? b : a));
    cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("d", `M${nearest[2]},10V${svg.viewBox.baseVal.height - 34}`);
    svg.append(cursor);
    tip = make("div", "tip");
    tip.append(make("div", "head", data.names[String(nearest[0])] || `${data.label} ${nearest[0]}`));
    for (const series of data.series) {
      const point = series.points.find((p) => p[0] === nearest[0]);
      if (!point) continue;
      const row = make("div");
      row.append(make("span", `key ${series.tone}`, series.name || "value"));
      row.append(make("b", "", data.percent ? `${(100 * point[1]).toFixed(1)} %` : String(point[1])));
      tip.append(row);
    }
    figure.append(tip);
    const left = nearest[2] / scale + 12;
    const fits = left + tip.offsetWidth < figure.clientWidth;
    tip.style.left = `${fits ? left : Math.max(0, left - 24 - tip.offsetWidth)}px`;
    tip.style.top = `${svg.offsetTop + 8}px`;
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerleave", hide);
}

// ---- one trajectory ----

const isBroken = (t) => t.ending === "fault" || t.ending === "lost";
const ENDINGS = {
  solved: "solved", failed: "failed", turn_limit: "turn limit", token_limit: "token limit", fault: "environment fault", lost: "beginning lost",
};

function sourceName(data, t) {
  return data.groups[t.group].name;
}

// A link names what it shows by its place in the run, so that it still holds on a page that is written anew.
function linkTo(kind, ...parts) {
  return `#${[kind, ...parts].map(encodeURIComponent).join("/")}`;
}

function trajectoryLink(data, t) {
  const group = data.groups[t.group];
  return linkTo("trajectory", group.round, group.source, t.task, t.sample);
}

function pairLink(data, group, pair) {
  const sides = [pair.chosen, pair.rejected].map((i) => data.trajectories[i]);
  const names = sides.flatMap((t) => [data.groups[t.group].source, t.sample]);
  const first = pair.from.some(Boolean) ? pair.from.map((turn) => turn + 1) : [];
  return linkTo("pair", group.round, group.learning, pair.kind, pair.task, ...names, ...first);
}

function makeLink(href, text) {
  const link = make("a", "", text);
  link.href = href;
  return link;
}

// The text from one place to another in spans of one shade; shades are numbers of characters and levels in turn.
function shadedText(text, from, to, shades) {
  if (!shades) return [text.slice(from, to)];
  const out = [];
  let at = 0;
  for (let i = 0; i < shades.length && at < to; i += 2) {
    const part = text.slice(Math.max(at, from), Math.min(at + shades[i], to));
    at += shades[i];
    if (part && at > from) out.push(shades[i + 1] ? make("span", `doubt d${shades[i + 1]}`, part) : part);
  }
  out.push(text.slice(Math.max(at, from), to)); // what was cut is told behind it
  return out;
}

function renderTurn(turn, number, shades, className, side, note) {
  const [response, action, observation, suggested] = turn;
  const block = make("div", `turn ${className || ""}`);
  block.append(make("div", "no", String(number)));
  const body = make("div");
  if (side) body.append(make("span", "tag side", side));
  if (note) body.append(make("span", "tag", note));
  if (suggested) body.append(make("span", "tag", `suggested: ${suggested}`));
  const said = make("pre");
  const marker = response.lastIndexOf("Action:");
  const tail = action === null && marker >= 0 ? marker + "Action:".length : response.length;
  const act = make("span", "act");
  act.append(...shadedText(response, tail, response.length, shades));
  said.append(...shadedText(response, 0, tail, shades), act);
  if (action !== null) said.append("\n", make("span", "tag", "action read "), make("span", "act", action));
  body.append(said);
  if (observation) body.append(make("pre", "obs", observation));
  block.append(body);
  return block;
}

function turnCount(t) {
  return t.turns.length === 1 ? "1 turn" : `${t.turns.length} turns`;
}

function describe(t) {
  const extra = isBroken(t) ? "not counted" : `reward ${t.reward.toFixed(3)}`;
  return `${extra} · ${ENDINGS[t.ending] || t.ending} · ${turnCount(t)} · ${t.tokens} agent tokens`;
}

function shadesOf(t, turn) {
  return t.shades && t.shades[turn];
}

// What the shades of the trajectories below say; an expert's tokens have none.
function legend(shown) {
  const line = make("p", "note doubts");
  if (!shown.some((t) => t.shades)) return line;
  line.append("Shaded: what the agent that wrote a token gave to all others, ");
  ["5–20", "20–40", "40–60", "60–80", "80–100"].forEach((part, i) => line.append(make("span", `doubt d${i + 1}`, part), " "));
  line.append("%.");
  if (!shown.every((t) => t.shades)) line.append(" What no agent of this run wrote has no shades.");
  return line;
}

function renderTrajectory(data, t) {
  const meta = make("div", "meta", `sample ${t.sample} · ${describe(t)} · `);
  meta.append(makeLink(trajectoryLink(data, t), "link"));
  const out = [make("h4", "", t.task), meta];
  out.push(make("pre", "prompt", data.prompts[t.prompt]));
  out.push(legend([t]));
  t.turns.forEach((turn, i) => out.push(renderTurn(turn, i + 1, shadesOf(t, i))));
  return out;
}

// ---- chosen | rejected ----

function renderSide(data, title, tone, t) {
  const head = make("div", "head");
  head.append(make("b", tone, `${title}: ${sourceName(data, t)}`), make("span", "", `${describe(t)} · `));
  head.append(makeLink(trajectoryLink(data, t), "whole trajectory"));
  return head;
}

function sameTurn(a, b) {
  return Boolean(a && b) && a[0] === b[0] && a[2] === b[2];
}

// What a pair that counts from a later turn on, or not all turns alike, says of a turn: 0 is the first.
function countsFrom(first, turn, weight) {
  if (turn < first) return "does not count";
  if (weight !== undefined && weight !== 1) return `weight ${Number(weight.toFixed(3))}`;
  return first && turn === first ? "counts from here on" : "";
}

// In one column, a turn that both sides share, and that both count alike, stands there once; page.css hides
// the other.
function renderPair(data, group, pair) {
  const chosen = data.trajectories[pair.chosen];
  const rejected = data.trajectories[pair.rejected];
  const gap = (chosen.reward - rejected.reward).toFixed(3);
  const meta = make("div", "meta", `${group.kinds[pair.kind]} · reward gap ${gap} · `);
  meta.append(makeLink(pairLink(data, group, pair), "link"));
  const out = [make("h4", "", pair.task), meta];
  out.push(make("pre", "prompt", data.prompts[chosen.prompt]), legend([chosen, rejected]));
  const longest = Math.max(chosen.turns.length, rejected.turns.length);
  let parting = 0;
  while (parting < longest && sameTurn(chosen.turns[parting], rejected.turns[parting])) parting += 1;
  const sides = make("div", "sides");
  sides.append(renderSide(data, "Chosen", "good", chosen), renderSide(data, "Rejected", "bad", rejected));
  for (let i = 0; i < longest; i += 1) {
    const notes = pair.from.map((first, k) => countsFrom(first, i, k ? pair.weights[i] : 1));
    const same = sameTurn(chosen.turns[i], rejected.turns[i]) && notes[0] === notes[1];
    for (const [k, [name, side]] of [["chosen", chosen], ["rejected", rejected]].entries()) {
      const turn = side.turns[i];
      const state = `${name} ${same ? "same" : "changed"}${notes[k] === "does not count" ? " idle" : ""}`;
      const said = [notes[k], i === parting ? "they part here" : ""].filter(Boolean).join(" · ");
      const shown = () => renderTurn(turn, i + 1, shadesOf(side, i), state, same ? "both" : name, said);
      sides.append(turn ? shown() : make("div", "turn gap"));
    }
  }
  out.push(sides);
  return out;
}

// ---- lists with filters ----

function fillSelect(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => {
    const option = make("option", "", text);
    option.value = value;
    return option;
  }));
  if (entries.some(([value]) => value === before)) select.value = before;
}

function unique(values) {
  return [...new Set(values)];
}

function fillRounds(select, groups) {
  const places = new Map(groups.map((g) => [String(g.round), g.place]));
  fillSelect(select, [...places]);
  select.value = String(Math.max(...groups.map((g) => g.round)));
}

// Entries are links; arrow keys go through them, from the list or from what it has opened.
function fillList(root, items, first, label, link, render) {
  const list = root.querySelector(".list");
  const detail = root.querySelector(".detail");
  let current = -1;
  function open(index, byUser) {
    current = index;
    entries.forEach((entry, i) => {
      entry.setAttribute("aria-current", String(i === index));
      entry.tabIndex = i === index ? 0 : -1;
    });
    detail.replaceChildren(...render(items[index]));
    detail.scrollTop = 0;
    if (byUser) history.replaceState(null, "", link(items[index]));
  }
  const entries = items.map((item, index) => {
    const entry = makeLink(link(item), "");
    const [id, value, below] = label(item);
    entry.append(make("span", "id", id), make("span", "", value), make("span", "sub", below));
    entry.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(index, true);
    });
    return entry;
  });
  const steps = { list: { ArrowUp: -1, ArrowDown: 1 }, detail: { ArrowLeft: -1, ArrowRight: 1 } };
  list.onkeydown = detail.onkeydown = (event) => {
    const where = event.currentTarget === list ? "list" : "detail";
    const step = steps[where][event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = current + step;
    if (next < 0 || next >= items.length) return;
    open(next, true);
    if (where === "list") entries[next].focus();
    else list.scrollTop = entries[next].offsetTop - list.offsetTop;
  };
  list.replaceChildren(...entries);
  if (!items.length) {
    detail.replaceChildren(make("p", "empty", "Nothing matches."));
    return;
  }
  const start = Math.max(items.indexOf(first), 0);
  open(start, false);
  list.scrollTop = entries[start].offsetTop - list.offsetTop;
}

const OUTCOMES = {
  all: () => true,
  solved: (t) => !isBroken(t) && t.reward >= 1,
  failure: (t) => !isBroken(t) && t.reward < 1,
  hard: (t, threshold) => !isBroken(t) && t.reward < 1 && t.reward >= threshold,
  turn_limit: (t) => t.ending === "turn_limit",
  token_limit: (t) => t.ending === "token_limit",
  fault: (t) => isBroken(t),
};

function searchText(data, t) {
  return [t.task, data.prompts[t.prompt], ...t.turns.flat()].join("\n").toLowerCase();
}

function controls(root, ...names) {
  return names.map((name) => root.querySelector(`[name=${name}]`));
}

function startTrajectories(root, data) {
  const [round, source, outcome, search] = controls(root, "round", "source", "outcome", "search");
  fillRounds(round, data.groups);
  function refresh(wanted) {
    const inRound = data.groups.filter((g) => String(g.round) === round.value);
    fillSelect(source, inRound.map((g) => [g.source, g.name]));
    if (wanted) source.value = data.groups[wanted.group].source;
    const group = inRound.find((g) => g.source === source.value);
    const words = search.value.toLowerCase();
    const items = group.items.map((i) => data.trajectories[i])
      .filter((t) => OUTCOMES[outcome.value](t, data.threshold) && (!words || searchText(data, t).includes(words)));
    const listed = items.length;
    if (wanted && !items.includes(wanted)) items.unshift(wanted); // a pair has brought it to the page
    root.querySelector(".note").textContent =
      `${listed} listed; this page holds ${group.items.length} of the ${group.total} trajectories of this phase.`;
    fillList(root, items, wanted,
      (t) => [t.task, isBroken(t) ? "–" : t.reward.toFixed(2), `${ENDINGS[t.ending] || t.ending} · ${turnCount(t)}`],
      (t) => trajectoryLink(data, t),
      (t) => renderTrajectory(data, t));
  }
  for (const control of [round, source, outcome, search]) control.addEventListener("input", () => refresh());
  refresh();
  return (hash) => {
    const wanted = data.trajectories.find((t) => trajectoryLink(data, t) === hash);
    if (!wanted) return false;
    [round.value, outcome.value, search.value] = [String(data.groups[wanted.group].round), "all", ""];
    refresh(wanted);
    return true;
  };
}

function startPairs(root, data) {
  const [round, learning, kind, search] = controls(root, "round", "learning", "kind", "search");
  fillRounds(round, data.pairs);
  function refresh(wanted, its) {
    const inRound = data.pairs.filter((g) => String(g.round) === round.value);
    fillSelect(learning, inRound.map((g) => [g.learning, g.name]));
    if (its) learning.value = its.learning;
    const group = inRound.find((g) => g.learning === learning.value);
    fillSelect(kind, [["all", "All kinds"], ...Object.entries(group.kinds)]);
    if (its) kind.value = "all";
    const words = search.value.toLowerCase();
    const sides = (p) => [data.trajectories[p.chosen], data.trajectories[p.rejected]];
    const items = group.items.filter((p) => (kind.value === "all" || p.kind === kind.value)
      && (!words || sides(p).some((t) => searchText(data, t).includes(words))));
    root.querySelector(".note").textContent =
      `${items.length} listed; this page holds ${group.items.length} of the ${group.total} pairs of this learner and round.`;
    fillList(root, items, wanted,
      (p) => { const [c, r] = sides(p); return [p.task, `${c.reward.toFixed(2)} › ${r.reward.toFixed(2)}`, group.kinds[p.kind]]; },
      (p) => pairLink(data, group, p),
      (p) => renderPair(data, group, p));
  }
  for (const control of [round, learning, kind, search]) control.addEventListener("input", () => refresh());
  refresh();
  return (hash) => {
    for (const group of data.pairs) {
      const wanted = group.items.find((p) => pairLink(data, group, p) === hash);
      if (!wanted) continue;
      [round.value, search.value] = [String(group.round), ""];
      refresh(wanted, group);
      return true;
    }
    return false;
  };
}

function startBrowsers(data) {
  const starts = { "trajectory-browser": [data.groups, startTrajectories], "pair-browser": [data.pairs, startPairs] };
  const shown = Object.entries(starts).filter(([, [groups]]) => groups.length).map(([id, [, start]]) => {
    const root = document.getElementById(id);
    return [root, start(root, data)];
  });
  function follow() {
    const found = shown.find(([, show]) => show(location.hash));
    if (found) found[0].scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  follow();
}

document.querySelectorAll("svg[data-hover]").forEach(attachHover);
const payload = document.getElementById("payload");
if (payload) startBrowsers(JSON.parse(payload.textContent));
