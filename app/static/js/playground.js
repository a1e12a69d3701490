// The playground: a conversation of several turns, answers streamed token by token.
import { copyText, toast } from "./app.js";
import { csrfToken, el } from "./dom.js";
import { renderMarkdown } from "./markdown.js";
import { readEvents } from "./sse.js";

const play = document.getElementById("play");
const talk = document.getElementById("talk");
const composer = document.getElementById("composer");
const prompt = document.getElementById("prompt");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const status = document.getElementById("talk-status");
const emptyTalk = document.getElementById("talk-empty");
const option = (id) => document.getElementById(id);

/** The turns so far: {role: "user"|"assistant", content}. */
let turns = [];
let underway = null;

// ---- What is sent ----------------------------------------------------------
function requestBody() {
  const system = option("system").value.trim();
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    // A question that got no answer joins the next one: roles must take turns.
    const last = messages.at(-1);
    if (last?.role === turn.role) last.content += `\n\n${turn.content}`;
    else messages.push({ ...turn });
  }
  const body = { model: option("model").value, messages, temperature: Number(option("temperature").value) };
  const most = Number.parseInt(option("max_tokens").value, 10);
  if (most > 0) body.max_tokens = most;
  return body;
}

function asCurl() {
  const body = requestBody();
  const draft = prompt.value.trim();
  if (draft || !turns.length) body.messages.push({ role: "user", content: draft || "Hello!" });
  else if (body.messages.at(-1).role === "assistant") body.messages.pop();
  const json = JSON.stringify({ ...body, stream: true }, null, 2).replaceAll("'", "'\\''");
  return [
    `curl -N ${play.dataset.api}/v1/chat/completions \\`,
    '  -H "Authorization: Bearer $WEFT_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d '${json}'`,
  ].join("\n");
}

// ---- What is shown ---------------------------------------------------------
function addUserTurn(text) {
  emptyTalk.hidden = true;
  talk.append(el("div", { class: "turn turn-user" }, el("div", { class: "bubble" }, text)));
}

function addModelTurn() {
  const turn = document.getElementById("turn-model-template").content.firstElementChild.cloneNode(true);
  turn.querySelector("[data-name]").textContent = option("model").value;
  turn.classList.add("is-streaming");
  talk.append(turn);
  turn.scrollIntoView({ block: "nearest" });
  return turn;
}

/** Draws at most once a frame, and follows the end of the answer if the reader is there. */
class AnswerView {
  constructor(turn) {
    this.turn = turn;
    this.text = "";
    this.reasoning = "";
    this.frame = 0;
  }

  add(kind, piece) {
    if (kind === "reasoning") this.reasoning += piece;
    else this.text += piece;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const isAtEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 120;
    this.turn.querySelector(".thinking")?.remove();
    if (this.reasoning) {
      const box = this.turn.querySelector(".reasoning");
      box.hidden = false;
      box.querySelector("pre").textContent = this.reasoning;
    }
    renderMarkdown(this.turn.querySelector(".markdown"), this.text);
    if (isAtEnd) window.scrollTo({ top: document.body.scrollHeight });
  }

  finish() {
    cancelAnimationFrame(this.frame);
    this.draw();
    this.turn.classList.remove("is-streaming");
  }

  fail(message) {
    const box = el("div", { class: "notice notice-bad", role: "alert" }, message);
    this.turn.querySelector(".bubble").append(box);
  }
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function showFigures(turn, figures) {
  const words = [];
  if (figures.firstAt) words.push(`First token after ${seconds(figures.firstAt - figures.askedAt)}`);
  const tokens = figures.tokens ?? figures.pieces;
  const spent = (figures.lastAt - figures.firstAt) / 1000;
  if (tokens) words.push(`${figures.tokens ? "" : "≈ "}${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  if (tokens > 1 && spent > 0) words.push(`${((tokens - 1) / spent).toFixed(1)} tokens/s`);
  if (figures.note) words.push(figures.note);
  turn.querySelector("[data-figures]").textContent = words.join(" · ");
}

function setBusy(isBusy) {
  stop.hidden = !isBusy;
  send.disabled = isBusy;
  for (const button of talk.querySelectorAll("[data-again]")) button.disabled = isBusy;
}

// ---- One answer ------------------------------------------------------------
async function answer() {
  const conversation = turns;
  const turn = addModelTurn();
  const view = new AnswerView(turn);
  const figures = { askedAt: performance.now(), pieces: 0 };
  underway = new AbortController();
  setBusy(true);
  status.textContent = "The model is answering.";
  try {
    const response = await fetch(play.dataset.stream, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream", "X-CSRFToken": csrfToken() },
      body: JSON.stringify(requestBody()),
      signal: underway.signal,
    });
    if (response.ok) await readAnswer(response, view, figures);
    else await refused(response, view);
  } catch (error) {
    if (error.name === "AbortError") figures.note = "stopped";
    else view.fail("The connection broke. The answer so far is kept.");
  }
  view.finish();
  figures.lastAt ??= performance.now();
  showFigures(turn, figures);
  turn.querySelector(".thinking")?.remove();
  if (view.text) conversation.push({ role: "assistant", content: view.text });
  underway = null;
  setBusy(false);
  status.textContent = view.text ? "The answer is complete." : "There is no answer.";
  prompt.focus({ preventScroll: true });
}

async function readAnswer(response, view, figures) {
  for await (const { event, data } of readEvents(response)) {
    const value = JSON.parse(data);
    if (event === "text" || event === "reasoning") {
      figures.lastAt = performance.now();
      figures.firstAt ??= figures.lastAt;
      figures.pieces += 1;
      view.add(event, value.text);
    } else if (event === "run") {
      const link = view.turn.querySelector("[data-run-link]");
      link.href = `${play.dataset.runs}/${encodeURIComponent(value.id)}`;
      link.hidden = false;
    } else if (event === "end") {
      figures.tokens = value.usage?.output_tokens ?? null;
      if (value.finish_reason === "length") figures.note = "cut off at the most tokens";
      if (value.state === "cancelled") figures.note = "stopped";
      if (value.state === "failed") view.fail(value.error || "The run failed.");
    }
  }
}

async function refused(response, view) {
  if (response.status === 401) {
    location.assign("/sign-in?next=/playground");
    return;
  }
  let message = `The hub answered with status ${response.status}.`;
  try {
    message = (await response.json()).message ?? message;
  } catch {
    // Not JSON: the status is all there is to say.
  }
  view.fail(message);
}

// ---- What the reader does ----------------------------------------------------
function ask(text) {
  if (underway || !text || !option("model")) return;
  prompt.value = "";
  turns.push({ role: "user", content: text });
  addUserTurn(text);
  answer();
}

function askAgain(turn) {
  if (underway) return;
  // Everything from this answer on goes; the question before it stays.
  const answers = [...talk.querySelectorAll(".turn-model")];
  const place = answers.indexOf(turn);
  const questions = [...talk.querySelectorAll(".turn-user")].slice(0, place + 1);
  for (let node = turn; node; ) {
    const next = node.nextElementSibling;
    node.remove();
    node = next;
  }
  let asked = 0;
  const end = turns.findIndex((one) => one.role === "user" && ++asked === questions.length);
  turns = turns.slice(0, end + 1);
  answer();
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(prompt.value.trim());
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});
stop.addEventListener("click", () => underway?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") underway?.abort();
});
talk.addEventListener("click", (event) => {
  const turn = event.target.closest(".turn-model");
  if (event.target.closest("[data-again]")) askAgain(turn);
  const copy = event.target.closest("[data-copy]");
  if (copy) copyText(turn.querySelector(".markdown").innerText, copy);
  const suggestion = event.target.closest("[data-suggestion]");
  if (suggestion) ask(suggestion.textContent.trim());
});
option("copy-curl").addEventListener("click", () => {
  if (option("model")) copyText(asCurl());
  else toast("No model is online.");
});
option("new-chat").addEventListener("click", () => {
  underway?.abort();
  turns = [];
  for (const turn of talk.querySelectorAll(".turn")) turn.remove();
  emptyTalk.hidden = false;
  prompt.focus();
});
option("temperature").addEventListener("input", (event) => {
  option("temperature-value").textContent = Number(event.target.value).toFixed(1);
});
// On a phone the options would push the conversation away.
if (window.matchMedia("(max-width: 1000px)").matches) option("play-options").open = false;
