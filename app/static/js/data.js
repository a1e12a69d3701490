// Uploads: chosen or dropped, one after the other, each with its progress.
import { csrfToken, el } from "./dom.js";

const form = document.querySelector("form[data-upload]");
const input = form.querySelector("input[type=file]");
const list = document.querySelector("[data-uploads]");
const maxBytes = Number(form.dataset.maxBytes);
const waiting = [];
let current = null;

function sizeText(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toPrecision(3)} ${units[unit]}`;
}

/** A line in the list of uploads. */
function makeLine(file) {
  const name = el("span", { class: "upload-name" }, file.name);
  const note = el("span", { class: "upload-note", role: "status" }, "waiting");
  const bar = el("progress", { class: "progress", max: "100", value: "0", "aria-label": `Upload of ${file.name}` });
  const stop = el("button", { type: "button", class: "button button-quiet button-s" }, "Cancel");
  const line = el("li", { class: "upload" }, name, note, bar, stop);
  list.append(line);
  return { line, name, note, bar, stop, file, request: null, isOver: false };
}

function settle(upload, text, tone) {
  upload.isOver = true;
  upload.note.textContent = text;
  upload.note.className = `upload-note ${tone}`;
  upload.bar.remove();
  upload.stop.textContent = "Hide";
}

function onAnswer(upload) {
  const { request } = upload;
  if (request.status === 401) location.assign("/sign-in");
  let said = {};
  try {
    said = JSON.parse(request.responseText);
  } catch {
    // Something between us and the hub answered.
  }
  if (request.status === 201) {
    upload.name.replaceChildren(el("a", { href: said.href }, said.name));
    settle(upload, "uploaded", "ok");
    htmx.trigger(document.body, "weft:tick");
  } else {
    settle(upload, said.message ?? "That did not work. Try again.", "bad");
  }
}

function start(upload) {
  const request = new XMLHttpRequest();
  upload.request = request;
  request.upload.addEventListener("progress", (event) => {
    const share = event.total ? Math.floor((100 * event.loaded) / event.total) : 0;
    upload.bar.value = share;
    upload.note.textContent = share < 100 ? `${share} % of ${sizeText(upload.file.size)}` : "checking";
  });
  request.addEventListener("load", () => onAnswer(upload));
  request.addEventListener("error", () => settle(upload, "The connection broke. Nothing was kept.", "bad"));
  request.addEventListener("abort", () => settle(upload, "cancelled", "faint"));
  request.addEventListener("loadend", () => {
    current = null;
    startNext();
  });
  const body = new FormData();
  body.append("csrf_token", csrfToken());
  body.append("file", upload.file);
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("X-CSRFToken", csrfToken());
  request.send(body);
}

function startNext() {
  if (current || !waiting.length) return;
  current = waiting.shift();
  start(current);
}

function onStop(upload) {
  if (upload.isOver) {
    upload.line.remove();
  } else if (upload.request) {
    upload.request.abort();
  } else {
    waiting.splice(waiting.indexOf(upload), 1);
    settle(upload, "cancelled", "faint");
  }
}

function take(files) {
  for (const file of files) {
    const upload = makeLine(file);
    upload.stop.addEventListener("click", () => onStop(upload));
    if (file.size > maxBytes) settle(upload, `larger than ${sizeText(maxBytes)}`, "bad");
    else if (!file.size) settle(upload, "empty, or a folder", "bad");
    else waiting.push(upload);
  }
  startNext();
}

input.multiple = true;
input.addEventListener("change", () => {
  take([...input.files]);
  input.value = "";
});

// ---- Dropping ----------------------------------------------------------------
let depth = 0; // over how many nested elements the files hang

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

document.addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  form.classList.add("is-over");
});
document.addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  depth -= 1;
  if (depth <= 0) form.classList.remove("is-over");
});
document.addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  form.classList.remove("is-over");
  take([...event.dataTransfer.files]);
});

window.addEventListener("beforeunload", (event) => {
  if (current) event.preventDefault();
});
