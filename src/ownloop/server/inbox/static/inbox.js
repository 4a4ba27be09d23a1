// What the pages do besides being pages: follow the server's news, keep relative times true, and (if switched on) single keys.
// Nothing here decides anything: every decision is a form that works without this file.

const news = document.getElementById("news");
const has = (selector, root = document) => root.querySelector(selector);

// ---- live: any word from the stream makes the parts that say so fetch themselves again (hx-trigger="ownloop:news from:body") ----------------

let soon = 0;
let connections = 0;
const tell = () => {
  clearTimeout(soon);
  soon = setTimeout(() => document.body.dispatchEvent(new CustomEvent("ownloop:news")), 200);
};

document.addEventListener("htmx:sse:before:message", (event) => {
  event.preventDefault(); // the stream carries JSON for everybody, not HTML for this page
  const { data, event: name } = event.detail.message;
  if (name === "progress" || name === "delta") return showProgress(name, data);
  if (name === "outcome") has("[data-progress]")?.setAttribute("hidden", "");
  tell();
});
document.addEventListener("htmx:sse:after:connection", () => {
  if (connections++ > 0) tell(); // whatever happened while the line was cut
});

function showProgress(name, data) {
  if (name !== "progress") return;
  let said;
  try { said = JSON.parse(data); } catch { return; }
  const box = has("[data-progress]");
  if (!box) return;
  const bar = has("progress", box);
  box.hidden = false;
  if (said.total) { bar.max = said.total; bar.value = said.done; } else bar.removeAttribute("value");
  has("[data-text]", box).textContent = (said.total ? `${said.done} of ${said.total} ` : `${said.done} `) + visible(said.text || "");
}
const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, (char) => "\\u" + char.codePointAt(0).toString(16).padStart(4, "0"));

let before = null;
document.addEventListener("htmx:before:swap", () => { before = ids(); });
document.addEventListener("htmx:after:swap", () => {
  refreshTimes();
  if (!before || !has("#list")) return;
  const fresh = [...ids()].filter((id) => !before.has(id));
  for (const id of fresh) has(`[data-id="${id}"]`)?.classList.add("fresh");
  if (fresh.length && has("[data-list] .badge:not(.st)")) announce(fresh.length === 1 ? "1 new request" : `${fresh.length} new requests`);
  before = null;
});
const ids = () => new Set([...document.querySelectorAll("#list [data-id]")].map((row) => row.dataset.id));

let quiet = 0;
function announce(text) {
  news.textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { news.textContent = ""; }, 8000);
}

// ---- times -------------------------------------------------------------------------------------------------------------------------------------

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
function refreshTimes() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-rel]")) {
    const seconds = Math.trunc((Date.parse(time.dateTime) - now) / 1000);
    const [unit, size] = UNITS.find(([, one]) => Math.abs(seconds) >= one) ?? ["s", 1];
    const text = `${Math.floor(Math.abs(seconds) / size)} ${unit}`;
    const words = Math.abs(seconds) < 2 ? "just now" : seconds > 0 ? `in ${text}` : `${text} ago`;
    if (time.textContent !== words) time.textContent = words;
  }
}
if (has("time[data-rel]")) setInterval(refreshTimes, 15000);

// ---- small helps ---------------------------------------------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
for (const button of document.querySelectorAll("[data-noscript]")) button.hidden = true;

document.addEventListener("change", (event) => {
  const choice = event.target.closest?.("[data-choice]");
  if (!choice) return;
  const kind = choice.selectedOptions[0].dataset.kind;
  const text = has(`#${CSS.escape(choice.id.replace(/-k$/, "-f"))}`);
  const shown = ["object", "array", "json"].includes(kind) || (!text && !["literal", "absent"].includes(kind));
  if (shown || choice.dataset.group !== undefined) submitAs(choice.form, "show");
  else if (text && ["literal", "absent"].includes(kind)) text.value = "";
});
document.addEventListener("input", (event) => {
  const text = event.target;
  if (!text.id?.endsWith("-f") || !text.value) return;
  const choice = document.getElementById(text.id.replace(/-f$/, "-k"));
  if (!choice || !["literal", "absent"].includes(choice.selectedOptions[0]?.dataset.kind)) return;
  const typed = [...choice.options].find((option) => ["text", "integer", "number"].includes(option.dataset.kind));
  if (typed) typed.selected = true;
});
function submitAs(form, move) {
  const button = Object.assign(document.createElement("button"), { name: "do", value: move, hidden: true });
  form.append(button);
  form.requestSubmit(button);
}
for (const box of document.querySelectorAll("details.act, details.with")) {
  box.addEventListener("toggle", () => { if (box.open) has("textarea, input:not([type=hidden])", box)?.focus(); });
}

// ---- single keys: only where they were switched on -----------------------------------------------------------------------------------------------

if (document.documentElement.dataset.keys === "on") {
  let went = 0;
  const rows = () => [...document.querySelectorAll("[data-list] .row .title a, .rows .row .title a")];
  const step = (by) => {
    const all = rows();
    const at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))]?.focus();
  };
  const point = (key) => {
    const target = has(`[data-key="${key}"]`);
    if (!target) return;
    if (target.tagName === "A") return target.click();
    target.focus();
    if (target.tagName === "SUMMARY") target.parentElement.open = true;
  };
  const base = document.body.dataset.base;
  const keys = { j: () => step(1), k: () => step(-1), a: () => point("a"), e: () => point("e"), r: () => point("r"), "?": () => has("#keys")?.showModal() };
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest("input, textarea, select, dialog[open]");
    if (inField || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (Date.now() - went < 1200 && "it".includes(event.key)) return location.assign(base + (event.key === "i" ? "/" : "/threads"));
    if (event.key === "g") { went = Date.now(); return; }
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
}
