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

const ENDINGS = {
  solved: "solved", failed: "failed", turn_limit: "turn limit", token_limit: "token limit", fault: "environment fault",
};
const SOURCES = {
  target: "Target explores", failure: "Failure agent explores", hard_negatives: "Hard negatives (failure agent)",
  "eval-target": "Evaluation: target", "eval-failure": "Evaluation: failure agent", expert: "Experts",
};

function roundName(round) {
  return round === 0 ? "Warm start" : `Round ${round}`;
}

function renderTurn(turn, number, className) {
  const [response, action, observation] = turn;
  const block = make("div", `turn ${className || ""}`);
  block.append(make("div", "no", String(number)));
  const body = make("div");
  const said = make("pre");
  const marker = response.lastIndexOf("Action:");
  const tail = action === null && marker >= 0 ? marker + "Action:".length : response.length;
  said.append(response.slice(0, tail), make("span", "act", response.slice(tail)));
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
  const extra = t.ending === "fault" ? "not counted" : `reward ${t.reward.toFixed(3)}`;
  return `${extra} · ${ENDINGS[t.ending] || t.ending} · ${turnCount(t)} · ${t.tokens} agent tokens`;
}

function renderTrajectory(data, t) {
  const out = [make("h4", "", t.task), make("div", "meta", `sample ${t.sample} · ${describe(t)}`)];
  out.push(make("pre", "prompt", data.prompts[t.prompt]));
  t.turns.forEach((turn, i) => out.push(renderTurn(turn, i + 1)));
  return out;
}

// ---- chosen | rejected ----

function renderSide(title, tone, source, t) {
  const head = make("div", "head");
  head.append(make("b", tone, `${title}: ${SOURCES[source] || source}`), make("span", "", describe(t)));
  return head;
}

function sameTurn(a, b) {
  return Boolean(a && b) && a[0] === b[0] && a[2] === b[2];
}

function renderPair(data, pair) {
  const chosen = data.trajectories[pair.chosen];
  const rejected = data.trajectories[pair.rejected];
  const gap = (chosen.reward - rejected.reward).toFixed(3);
  const out = [make("h4", "", pair.task), make("div", "meta", `${data.kinds[pair.kind] || pair.kind} · reward gap ${gap}`)];
  out.push(make("pre", "prompt", data.prompts[chosen.prompt]));
  const sides = make("div", "sides");
  sides.append(renderSide("Chosen", "good", pair.chosenSource, chosen), renderSide("Rejected", "bad", pair.rejectedSource, rejected));
  for (let i = 0; i < Math.max(chosen.turns.length, rejected.turns.length); i += 1) {
    const same = sameTurn(chosen.turns[i], rejected.turns[i]);
    for (const side of [chosen, rejected]) {
      const turn = side.turns[i];
      sides.append(turn ? renderTurn(turn, i + 1, same ? "same" : "changed") : make("div", "turn"));
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
  const rounds = unique(groups.map((g) => g.round));
  fillSelect(select, rounds.map((r) => [String(r), roundName(r)]));
  select.value = String(Math.max(...rounds));
}

function fillList(root, items, label, render) {
  const list = root.querySelector(".list");
  const detail = root.querySelector(".detail");
  function open(button, item) {
    for (const other of list.children) other.setAttribute("aria-current", String(other === button));
    detail.replaceChildren(...render(item));
    detail.scrollTop = 0;
  }
  const buttons = items.map((item) => {
    const button = make("button");
    button.type = "button";
    const [id, value, below] = label(item);
    button.append(make("span", "id", id), make("span", "", value), make("span", "sub", below));
    button.addEventListener("click", () => open(button, item));
    return button;
  });
  list.replaceChildren(...buttons);
  list.scrollTop = 0;
  if (items.length) open(buttons[0], items[0]);
  else detail.replaceChildren(make("p", "empty", "Nothing matches."));
}

const OUTCOMES = {
  all: () => true,
  solved: (t) => t.ending !== "fault" && t.reward >= 1,
  failure: (t) => t.ending !== "fault" && t.reward < 1,
  hard: (t, threshold) => t.ending !== "fault" && t.reward < 1 && t.reward >= threshold,
  turn_limit: (t) => t.ending === "turn_limit",
  token_limit: (t) => t.ending === "token_limit",
  fault: (t) => t.ending === "fault",
};

function searchText(data, t) {
  return [t.task, data.prompts[t.prompt], ...t.turns.flat()].join("\n").toLowerCase();
}

function startTrajectories(root, data) {
  const [round, source, outcome, search] = ["round", "source", "outcome", "search"].map((n) => root.querySelector(`[name=${n}]`));
  fillRounds(round, data.groups);
  function refresh() {
    const inRound = data.groups.filter((g) => String(g.round) === round.value);
    fillSelect(source, inRound.map((g) => [g.source, SOURCES[g.source] || g.source]));
    const group = inRound.find((g) => g.source === source.value);
    const words = search.value.toLowerCase();
    const items = group.items.map((i) => data.trajectories[i])
      .filter((t) => OUTCOMES[outcome.value](t, data.threshold) && (!words || searchText(data, t).includes(words)));
    root.querySelector(".note").textContent =
      `${items.length} listed; this page holds ${group.items.length} of the ${group.total} trajectories of this phase.`;
    fillList(root, items,
      (t) => [t.task, t.ending === "fault" ? "–" : t.reward.toFixed(2), `${ENDINGS[t.ending] || t.ending} · ${turnCount(t)}`],
      (t) => renderTrajectory(data, t));
  }
  for (const control of [round, source, outcome, search]) control.addEventListener("input", refresh);
  refresh();
}

function startPairs(root, data) {
  const [round, agent, kind, search] = ["round", "agent", "kind", "search"].map((n) => root.querySelector(`[name=${n}]`));
  fillRounds(round, data.pairs);
  const agents = { target: "Target", failure: "Failure agent" };
  function refresh() {
    const inRound = data.pairs.filter((g) => String(g.round) === round.value);
    fillSelect(agent, inRound.map((g) => [g.agent, agents[g.agent] || g.agent]));
    const group = inRound.find((g) => g.agent === agent.value);
    fillSelect(kind, [["all", "All kinds"], ...unique(group.items.map((p) => p.kind)).map((k) => [k, data.kinds[k] || k])]);
    const words = search.value.toLowerCase();
    const sides = (p) => [data.trajectories[p.chosen], data.trajectories[p.rejected]];
    const items = group.items.filter((p) => (kind.value === "all" || p.kind === kind.value)
      && (!words || sides(p).some((t) => searchText(data, t).includes(words))));
    root.querySelector(".note").textContent =
      `${items.length} listed; this page holds ${group.items.length} of the ${group.total} pairs of this agent and round.`;
    fillList(root, items,
      (p) => { const [c, r] = sides(p); return [p.task, `${c.reward.toFixed(2)} › ${r.reward.toFixed(2)}`, data.kinds[p.kind] || p.kind]; },
      (p) => renderPair(data, p));
  }
  for (const control of [round, agent, kind, search]) control.addEventListener("input", refresh);
  refresh();
}

document.querySelectorAll("svg[data-hover]").forEach(attachHover);
const payload = document.getElementById("payload");
if (payload) {
  const data = JSON.parse(payload.textContent);
  if (data.groups.length) startTrajectories(document.getElementById("trajectory-browser"), data);
  if (data.pairs.length) startPairs(document.getElementById("pair-browser"), data);
}
