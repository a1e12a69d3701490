// Google's answer stands in the address's fragment, which browsers send to no server: take it
// out of the address and the history, and hand it to our own.
const answer = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname);

if (answer.has("state") || answer.has("error")) {
  const form = document.getElementById("google-answer");
  for (const name of ["state", "id_token", "error"]) {
    form.elements.namedItem(name).value = answer.get(name) ?? "";
  }
  form.submit();
} else {
  location.replace("/sign-in"); // a reload, or a way back through the history
}
