"use strict";
const at = (id) => document.getElementById(id);
const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

function headers() {
  const key = at("key").value.trim();
  return key ? { Authorization: "Bearer " + key } : {};
}

function complain(message) {
  at("answer").replaceChildren(element("p", message, { class: "alarm", role: "alert" }));
}

function acceptDrops(take) {
  for (const name of ["dragenter", "dragover"]) {
    at("drop").addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    at("drop").addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.remove("over"); });
  }
  at("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
}

function factsOf(response, elapsed, own) {
  const list = element("dl");
  const version = response.headers.get("X-Model-Version");
  const known = {
    ...own,
    Version: version,
    Device: response.headers.get("X-Device"),
    Cache: response.headers.get("X-Cache"),
    Server: (response.headers.get("Server-Timing") || "").replaceAll(";dur=", " ") + " (ms)",
    "Round trip": elapsed.toFixed(0) + " ms",
  };
  for (const [name, value] of Object.entries(known)) {
    if (value) list.append(element("dt", name), element("dd", value));
  }
  return list;
}

async function listModels(task) {
  try {
    const response = await fetch("/v1/models", { headers: headers() });
    if (!response.ok) return;
    const kept = at("model").value;
    const options = [element("option", "auto", { value: "auto" })];
    for (const card of (await response.json()).data) {
      if (card.task !== task) continue;
      const top1 = card.quality.top1 ? " (top-1 " + (100 * card.quality.top1).toFixed(1) + " %)" : "";
      options.push(element("option", card.id + (card.variants.length ? " family" : top1), { value: card.id }));
    }
    at("model").replaceChildren(...options);
    at("model").value = options.some((option) => option.value === kept) ? kept : "auto";
  } catch (error) {
    complain("The server cannot be reached.");
  }
}
