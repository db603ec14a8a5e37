"use strict";

const PAUSE = 180;
const SUGGESTIONS = 4;
const MEMORY = "labelspace-added";

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
const added = new Map(JSON.parse(sessionStorage.getItem(MEMORY) ?? "[]"));
let asking = null;
let pause = 0;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function tell(fault) {
  at("fault").hidden = !fault;
  at("fault").textContent = fault ?? "";
}

/** What the service answers; throws an Error whose message is for people. */
async function call(method, path, body, signal) {
  const request = { method, signal };
  if (body) Object.assign(request, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `The request failed (${response.status}).`);
  return answer;
}

/** Runs one of the actions below and shows what went wrong, or that nothing did. */
async function attempt(action) {
  try {
    await action();
    tell(null);
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  }
}

async function showInfo() {
  const info = await call("GET", "/v1/info");
  at("info-labels").textContent = number.format(info.labels);
  at("info-bundle").textContent = info.bundle;
  at("info-change").textContent = number.format(info.change);
  at("text").maxLength = info.limits.text_characters;
}

async function suggest() {
  const page = await call("GET", `/v1/labels?limit=${SUGGESTIONS}`);
  const chips = page.labels.map((label) => {
    const text = label.text || label.id;
    const chip = element("button", { type: "button", textContent: text, title: text });
    chip.addEventListener("click", () => {
      at("text").value = text;
      at("text").focus();
      attempt(predict);
    });
    return chip;
  });
  at("suggestions").replaceChildren("For example:", ...chips);
  at("suggestions").hidden = !chips.length;
}

async function predict() {
  clearTimeout(pause);
  asking?.abort();
  const text = at("text").value;
  if (!text.trim()) {
    at("ranking").replaceChildren();
    at("outcome").textContent = "Labels appear here as you type.";
    return;
  }
  asking = new AbortController();
  const body = { inputs: [{ text }], top_k: Number(at("top-k").value), threshold: Number(at("threshold").value) };
  const began = performance.now();
  const answer = await call("POST", "/v1/predict", body, asking.signal);
  showRanking(answer.predictions[0].labels, performance.now() - began);
  at("info-bundle").textContent = answer.bundle;
  at("info-change").textContent = number.format(answer.change);
}

function showRanking(labels, milliseconds) {
  const count = labels.length === 1 ? "1 label" : `${number.format(labels.length)} labels`;
  at("outcome").textContent = labels.length ? `${count} in ${milliseconds.toFixed(0)} ms` : "No label is that probable.";
  at("ranking").replaceChildren(...labels.map(rankedLabel));
}

function rankedLabel(label) {
  const bar = element("span", { className: "bar", ariaHidden: "true" });
  // Set through the object model, which the page's policy allows; a style attribute it would not.
  bar.style.width = `${100 * label.probability}%`;
  const row = element("li", {}, bar, labelName(label));
  if (added.has(label.id)) row.lastChild.append(element("span", { className: "tag", textContent: "yours" }));
  row.append(element("span", { className: "chance", textContent: percent(label.probability), title: `score ${label.score}` }));
  return row;
}

function labelName(label) {
  const name = element("span", { className: "name" }, label.text || label.id);
  if (label.text && label.text !== label.id) name.append(" ", element("code", { textContent: label.id }));
  return name;
}

function percent(probability) {
  const value = 100 * probability;
  return `${value > 0 && value < 0.1 ? "< 0.1" : value.toFixed(1)} %`;
}

async function addLabel() {
  const id = at("label-id").value;
  const text = at("label-text").value.trim();
  const examples = at("label-examples").value.split("\n").filter((line) => line.trim());
  if (!text && !examples.length) throw new Error("Give the label a name or an example: from these it is recognised.");
  const stored = await call("PUT", `/v1/labels/${encodeURIComponent(id)}`, { text, examples });
  added.set(stored.id, stored.text);
  showAdded();
  at("add").reset();
  at("stored").textContent = `“${stored.id}” is stored and searchable (change ${number.format(stored.change)}).`;
  await Promise.all([showInfo(), predict()]);
}

async function removeLabel(id) {
  const removed = await call("DELETE", `/v1/labels/${encodeURIComponent(id)}`);
  added.delete(id);
  showAdded();
  at("stored").textContent = `“${id}” is removed (change ${number.format(removed.change)}).`;
  at("label-id").focus();
  await Promise.all([showInfo(), predict()]);
}

function showAdded() {
  sessionStorage.setItem(MEMORY, JSON.stringify([...added]));
  at("added").hidden = !added.size;
  at("added-list").replaceChildren(
    ...[...added].map(([id, text]) => {
      const remove = element("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${id}` });
      remove.addEventListener("click", () => attempt(() => removeLabel(id)));
      return element("li", {}, labelName({ id, text }), remove);
    }),
  );
}

async function whileBusy(form, action) {
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  await attempt(action);
  button.disabled = false;
}

function begin() {
  at("predict").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(predict);
  });
  at("text").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => attempt(predict), PAUSE);
  });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) attempt(predict);
  });
  for (const choice of ["top-k", "threshold"]) at(choice).addEventListener("change", () => attempt(predict));
  at("add").addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(event.target, addLabel);
  });
  showAdded();
  attempt(() => Promise.all([showInfo(), suggest()]));
}

begin();
