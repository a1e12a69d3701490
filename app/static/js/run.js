// A run's page while it is live: the answer grows as its events come in.
const answer = document.querySelector("[data-answer][data-events]");

if (answer) {
  const source = new EventSource(answer.dataset.events);
  const waiting = document.querySelector("[data-waiting]");
  answer.textContent = "";
  source.addEventListener("reasoning", (event) => {
    const box = document.querySelector("[data-reasoning]");
    box.hidden = false;
    box.querySelector("pre").append(JSON.parse(event.data).text);
  });
  source.addEventListener("text", (event) => {
    waiting?.remove();
    answer.append(JSON.parse(event.data).text);
  });
  source.addEventListener("end", () => {
    source.close();
    htmx.trigger(document.body, "weft:run-changed");
  });
  window.addEventListener("pagehide", () => source.close());
}
