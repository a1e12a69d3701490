// A research's page while it is live: steps change, the report grows.
import { el } from "./dom.js";
import { renderMarkdown } from "./markdown.js";

const report = document.querySelector("[data-report][data-events]");

function showStep(list, news) {
  let line = [...list.children].find((one) => one.dataset.step === news.step);
  if (!line) {
    line = el(
      "li",
      { "data-step": news.step },
      el("span", { class: "dot", "aria-hidden": "true" }),
      el("div", {}, news.title),
      el("div", { class: "faint small", "data-state": "" }),
    );
    list.append(line);
  }
  const isBusy = news.tone === "busy";
  line.firstElementChild.className = `dot${news.tone ? ` dot-${news.tone}` : ""}${isBusy ? " dot-live" : ""}`;
  line.querySelector("[data-state]").textContent = news.text;
}

/** A job that waited when the page was made has been taken up. */
function showBegun() {
  document.querySelector("[data-no-steps]")?.remove();
  document.querySelector("[data-queued]")?.remove();
  document.querySelector("[data-begun]")?.removeAttribute("hidden");
}

if (report) {
  const source = new EventSource(report.dataset.events);
  const steps = document.querySelector("[data-steps]");
  let text = "";
  let frame = 0;
  const draw = () => {
    frame = 0;
    renderMarkdown(report, text);
  };
  // Every connection tells it all from the beginning.
  source.addEventListener("open", () => {
    text = "";
  });
  source.addEventListener("step", (event) => {
    showBegun();
    showStep(steps, JSON.parse(event.data));
  });
  source.addEventListener("text", (event) => {
    document.querySelector("[data-waiting]")?.remove();
    text += JSON.parse(event.data).text;
    frame ||= requestAnimationFrame(draw);
  });
  source.addEventListener("end", () => {
    source.close();
    cancelAnimationFrame(frame);
    htmx.trigger(document.body, "weft:research-changed");
  });
  window.addEventListener("pagehide", () => source.close());
}
