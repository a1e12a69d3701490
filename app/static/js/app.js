// What every page shares: theme, copying, dialogs, times, live parts, messages.
import { el } from "./dom.js";

const TICK_MS = 5000;

// ---- Theme -----------------------------------------------------------------
function chosenTheme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function showChosenTheme() {
  for (const button of document.querySelectorAll("[data-set-theme]")) {
    button.setAttribute("aria-pressed", String(button.dataset.setTheme === chosenTheme()));
  }
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem("weft-theme");
    else localStorage.setItem("weft-theme", theme);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
  showChosenTheme();
}

// ---- Messages --------------------------------------------------------------
export function toast(text) {
  const close = el("button", { type: "button", "aria-label": "Dismiss" }, "✕");
  const box = el("div", { class: "toast" }, el("p", {}, text), close);
  close.addEventListener("click", () => box.remove());
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), 8000);
}

// ---- Copying ---------------------------------------------------------------
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard outside HTTPS and localhost: the old way, which needs a selection.
    const area = el("textarea", { class: "visually-hidden", readonly: "" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (!isCopied) {
      toast("Your browser does not allow copying. Select the text instead.");
      return;
    }
  }
  button?.classList.add("is-done");
  setTimeout(() => button?.classList.remove("is-done"), 1600);
  toast("Copied");
}

function onCopy(button) {
  const source = document.getElementById(button.dataset.copyFrom);
  copyText(button.dataset.copyText ?? source?.textContent ?? "", button);
}

// ---- Dialogs ---------------------------------------------------------------
async function openDialog(href) {
  const dialog = document.getElementById("dialog");
  await htmx.ajax("GET", href, { target: "#dialog-content", swap: "innerHTML" });
  if (!dialog.open) dialog.showModal();
}

// ---- Times -----------------------------------------------------------------
const dateForm = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function agoText(then) {
  const seconds = Math.max(0, (Date.now() - then) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds / 5) * 5} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function showTimes(root = document) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    const text = time.dataset.time === "ago" ? agoText(at.getTime()) : dateForm.format(at);
    if (time.textContent !== text) time.textContent = text;
    time.title = dateForm.format(at);
  }
}

// ---- Live parts ------------------------------------------------------------
// Parts with hx-trigger="weft:tick from:body" refresh while somebody looks at the page, but
// not while the reader's focus or an opened detail is inside them.
function tick() {
  if (document.visibilityState === "visible") htmx.trigger(document.body, "weft:tick");
}

const lastAnswers = new WeakMap();

function isLive(element) {
  return element.getAttribute?.("hx-trigger")?.includes("weft:tick") ?? false;
}

function isInUse(element) {
  return element.contains(document.activeElement) || element.querySelector("details[open]");
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (isLive(event.detail.elt) && isInUse(event.detail.elt)) event.preventDefault();
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, target, xhr } = event.detail;
  if (!isLive(elt) || xhr.status !== 200) return;
  if (lastAnswers.get(target) === xhr.responseText) event.detail.shouldSwap = false;
  lastAnswers.set(target, xhr.responseText);
});

document.addEventListener("htmx:configRequest", (event) => {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token;
});

document.addEventListener("htmx:responseError", (event) => {
  const { elt, xhr } = event.detail;
  if (xhr.status === 401) location.assign("/sign-in");
  else if (!isLive(elt)) toast("That did not work. Reload the page and try again.");
});

document.addEventListener("htmx:sendError", (event) => {
  if (!isLive(event.detail.elt)) toast("The hub can't be reached. Is your connection up?");
});

document.addEventListener("htmx:afterSwap", (event) => showTimes(event.detail.target));

// ---- One listener for everything that is clicked ----------------------------
document.addEventListener("click", (event) => {
  const theme = event.target.closest("[data-set-theme]");
  if (theme) setTheme(theme.dataset.setTheme);

  const copy = event.target.closest("[data-copy]");
  if (copy && (copy.dataset.copyFrom || copy.dataset.copyText !== undefined)) onCopy(copy);

  const opener = event.target.closest("a[data-dialog]");
  if (opener && !event.metaKey && !event.ctrlKey) {
    event.preventDefault();
    openDialog(opener.href);
  }
  const closer = event.target.closest("[data-dialog-close]");
  if (closer?.closest("dialog")) {
    event.preventDefault();
    closer.closest("dialog").close();
  }
  if (event.target instanceof HTMLDialogElement) event.target.close();

  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// ---- Forms ------------------------------------------------------------------
// Once sent, a form says so and is not sent again; a page that comes back from the browser's
// memory starts anew.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post") return;
  if (form.dataset.sent !== undefined) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "";
  event.submitter?.setAttribute("aria-busy", "true");
});

window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("[aria-busy=true]")) button.removeAttribute("aria-busy");
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("visibilitychange", tick);
setInterval(tick, TICK_MS);
setInterval(showTimes, TICK_MS, document);
showChosenTheme();
showTimes();
document.querySelector("[aria-invalid=true]")?.focus();
