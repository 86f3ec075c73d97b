"use strict";
const at = (id) => document.getElementById(id);
const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

// Routes are relative to the page: a proxy may show all of this under a path of its own.
const absolute = (route) => new URL(route, location.href).href;

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

function acceptDrops(take, place = at("drop")) {
  for (const name of ["dragenter", "dragover"]) {
    place.addEventListener(name, (event) => { event.preventDefault(); place.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    place.addEventListener(name, (event) => { event.preventDefault(); place.classList.remove("over"); });
  }
  place.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
}

function factsOf(response, elapsed, own) {
  const list = element("dl");
  const version = response.headers.get("X-Model-Version");
  const known = {
    ...own,
    Version: version,
    Device: response.headers.get("X-Device"),
    Cache: response.headers.get("X-Cache"),
    Server: (response.headers.get("Server-Timing") || "").replaceAll(";dur=", " ").replace(/.$/, "$& (ms)"),
    "Round trip": elapsed.toFixed(0) + " ms",
  };
  for (const [name, value] of Object.entries(known)) {
    if (value) list.append(element("dt", name), element("dd", value));
  }
  return list;
}

async function said(response) {
  try {
    return (await response.json()).error.message;
  } catch (error) {
    return "The server answered with status " + response.status + ".";
  }
}

function once() {
  return { "Idempotency-Key": crypto.randomUUID ? crypto.randomUUID() : String(Math.random()) };
}

// The server-sent events of a response, each as its fields by name.
async function* messages(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      yield Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s)));
    }
  }
}

async function* events(job, after, signal) {
  const asked = { headers: { ...headers(), "Last-Event-ID": String(after) }, signal };
  const response = await fetch("v1/jobs/" + job + "/events", asked);
  if (!response.ok) throw new Error(await said(response));
  for await (const fields of messages(response)) {
    if (fields.data) yield [Number(fields.id), JSON.parse(fields.data)];
  }
}

// Shows a job whenever it has changed; returns it when it has ended, null when the server stays away.
async function follow(id, present, lost, signal) {
  let after = 0;
  for (let tries = 0; tries < 60; tries += 1) {
    try {
      for await (const [number, job] of events(id, after, signal)) {
        after = number;
        tries = 0;
        present(job);
        if (job.ended_at !== null) return job;
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      lost();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return null;
}

function cancelJob(id) {
  return fetch("v1/jobs/" + id, { method: "DELETE", headers: headers() });
}

function jobView(job, own) {
  const facts = element("dl");
  const known = {
    Job: job.id,
    ...own,
    State: job.state + (job.cancelling ? ", stopping" : ""),
    Doing: job.ended_at === null ? job.phase : "",
    Left: job.eta_seconds === null ? "" : "about " + Math.ceil(job.eta_seconds) + " s",
    Attempts: job.attempts > 1 ? String(job.attempts) : "",
  };
  for (const [name, value] of Object.entries(known)) {
    if (value) facts.append(element("dt", name), element("dd", value));
  }
  const parts = [element("progress", undefined, { max: 1, value: job.progress, "aria-label": "Progress" }), facts];
  if (job.error) parts.push(element("p", job.error.message, { class: "alarm", role: "alert" }));
  if (job.ended_at === null) {
    const stop = element("button", "Cancel", { type: "button", class: "quiet" });
    stop.addEventListener("click", () => cancelJob(job.id));
    parts.push(stop);
  }
  return parts;
}

// Fills the choice of a model; returns the cards of the task's models.
async function listModels(task) {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) return [];
    const kept = at("model").value;
    const options = [element("option", "auto", { value: "auto" })];
    const cards = (await response.json()).data.filter((card) => card.task === task);
    for (const card of cards) {
      const top1 = card.quality.top1 ? " (top-1 " + (100 * card.quality.top1).toFixed(1) + " %)" : "";
      options.push(element("option", card.id + (card.variants.length ? " family" : top1), { value: card.id }));
    }
    at("model").replaceChildren(...options);
    at("model").value = options.some((option) => option.value === kept) ? kept : "auto";
    return cards;
  } catch (error) {
    complain("The server cannot be reached.");
    return [];
  }
}
