// Live pages: the server renders, this keeps what it rendered up to date.
//
// The page's own address is fetched again every live_secs, and soon after anything has happened (the
// event stream says when). Each element marked data-live is changed in place into what the server
// says now: nothing is drawn twice, in two languages. Focus, selection, open menus and what somebody
// is typing stay; rows stay where they are while the pointer is on them. A hidden tab asks for
// nothing. When the server does not answer, a strip says so and how old the figures are.
// There is no innerHTML here: fetched pages are parsed into a document that runs no script.

const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const ANSWER_MS_MAX = 15000;
// Events come in swarms; one look is enough for all that came within this.
const SWARM_MS = 250;

document.documentElement.classList.add("scripted");

/** Makes element `from` equal to `to`, keeping nodes that are still the same. */
function morph(from, to) {
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) return;
  if (from.hasAttribute("data-working")) return;
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !kept(from, name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value && !kept(from, name)) from.setAttribute(name, value);
  }
  if (from.matches("input, textarea, select")) return;
  const wanted = from.matches("tbody:hover, [data-rows]:hover") && [...from.children].every(idOf) ? held(from, to) : [...to.childNodes];
  const byId = new Map();
  for (const child of from.children) if (idOf(child)) byId.set(idOf(child), child);
  let at = from.firstChild;
  for (const next of wanted) {
    let match = null;
    if (next === at) match = at;
    else if (idOf(next)) match = byId.get(idOf(next)) || null;
    else match = nextAlike(at, next);
    if (match) {
      while (at && at !== match && !idOf(at) && !idOf(match)) {
        const passed = at;
        at = at.nextSibling;
        passed.remove();
      }
      if (match === at) at = at.nextSibling;
      else from.insertBefore(match, at);
      if (match !== next) morph(match, next);
    } else {
      from.insertBefore(document.importNode(next, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** The rows of `to` in the order in which they stand under the pointer; what is gone stays, marked. */
function held(from, to) {
  const rows = new Map([...to.children].map((row) => [row.id, row]));
  const order = [];
  for (const row of from.children) {
    order.push(rows.get(row.id) || row);
    if (!rows.delete(row.id)) row.classList.add("gone");
  }
  return [...order, ...rows.values()];
}

/** The id of a node. A form's own property would be its field of that name. */
function idOf(node) {
  return (node.nodeType === Node.ELEMENT_NODE && node.getAttribute("id")) || "";
}

/** The nearest node from `at` on, before one with an id, that can become `next`. */
function nextAlike(at, next) {
  for (let node = at; node && !idOf(node); node = node.nextSibling) {
    if (node.nodeType === next.nodeType && node.nodeName === next.nodeName) return node;
    if (next.nodeType === Node.TEXT_NODE) return null;
  }
  return null;
}

/** What belongs to the person and not to the server. */
function kept(element, name) {
  if (name === "open") return element.matches("details, dialog");
  if (name === "hidden") return element.matches("[data-copy], [data-script]");
  return name === "checked" || name === "data-working";
}

const live = {
  secs: Number(document.body.dataset.liveSecs || 0),
  timer: 0,
  busy: false,
  again: false,
  failures: 0,
  hurry: 0,
  seen: new Date(),
  gone: false,
  left: 0,
};

// Whoever is on the way to another page is not to be led elsewhere by this one. What is saved as a file
// looks the same and leaves the page where it is, so it counts for a while only.
const LEAVING_MS = 5000;
window.addEventListener("beforeunload", () => { live.left = Date.now(); });
function isLeft() {
  return Date.now() - live.left < LEAVING_MS;
}

/** Brings the live regions up to date; `once` does so on a page that is not live, too. */
async function refresh(once) {
  if (live.gone || document.hidden || (!live.secs && !once)) return;
  if (live.busy) {
    live.again = true;
    return;
  }
  live.busy = true;
  clearTimeout(live.timer);
  try {
    const asked = location.href;
    const answer = await fetch(asked, { headers: { accept: "text/html", "berth-look": "again" }, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
      if (!isLeft()) location.reload();
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.status === 404 || answer.status === 410) gone();
    else if (answer.status === 429 || answer.status === 503) stale("The server is busy");
    else if (!answer.ok) stale("The server could not answer");
    else if (asked === location.href) {
      apply(page);
      live.seen = new Date();
      live.failures = 0;
      strip("");
    } else live.again = true;
  } catch {
    stale("Connection lost");
  } finally {
    live.busy = false;
    if (live.again) {
      live.again = false;
      refresh(once);
    } else schedule();
  }
}

function apply(page) {
  const style = "link[rel=stylesheet]";
  const [ours, theirs] = [document.querySelector(style), page.querySelector(style)];
  // Another version serves now: its pages want its own style and script.
  if (ours && theirs && ours.getAttribute("href") !== theirs.getAttribute("href") && !typed()) {
    location.reload();
    return;
  }
  const focused = document.activeElement;
  for (const region of document.querySelectorAll("[data-live]")) {
    if (region.id === "flash" || marking(region)) continue;
    const now = page.getElementById(region.id);
    if (now) morph(region, document.importNode(now, true));
  }
  // Moving a row takes its focus away.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  if (page.title) document.title = page.title;
  const [shown, icon] = [document.getElementById("favicon"), page.getElementById("favicon")];
  if (icon && shown && icon.getAttribute("href") !== shown.getAttribute("href")) shown.setAttribute("href", icon.getAttribute("href"));
  live.secs = Number(page.body.dataset.liveSecs || 0);
  document.dispatchEvent(new CustomEvent("berth:updated"));
}

/** Whether somebody marks text in there, to copy it. */
function marking(region) {
  const selection = getSelection();
  return Boolean(selection && !selection.isCollapsed && selection.anchorNode && region.contains(selection.anchorNode) && selection.toString());
}

/** Whether anything on the page was typed and not sent. */
function typed() {
  return [...document.querySelectorAll("main form :is(input, textarea)")].some((field) => field.value !== field.defaultValue && field.type !== "hidden");
}

function stale(what) {
  live.failures += 1;
  // A single miss is no news.
  if (live.failures > 1 || what !== "Connection lost") strip(`${what}: showing ${live.seen.toLocaleTimeString("en-GB")}. Trying again.`);
}

function gone() {
  live.gone = true;
  strip(`This is no longer here: showing how it was at ${live.seen.toLocaleTimeString("en-GB")}.`);
}

function strip(text) {
  const line = document.getElementById("stale");
  if (!line) return;
  if (text) line.querySelector("span").textContent = text;
  line.hidden = !text;
  document.documentElement.classList.toggle("stale", Boolean(text));
}

function schedule() {
  clearTimeout(live.timer);
  if (!live.secs || live.gone || document.hidden) return;
  let wait = live.secs * 1000;
  if (live.failures) wait = RETRY_MS[Math.min(live.failures, RETRY_MS.length) - 1];
  else if (live.hurry > 0) {
    live.hurry -= 1;
    wait = 400;
  }
  live.timer = setTimeout(refresh, wait);
}

/** Looks again when something has happened, until the tab is hidden or the stream ends. */
const stream = { ender: null, swarm: 0, failures: 0, timer: 0 };

async function follow() {
  clearTimeout(stream.timer);
  // A page that follows a log has its one stream; the events would be a second.
  if (stream.ender || !live.secs || live.gone || document.hidden || document.querySelector("[data-follow]")) return;
  const ender = new AbortController();
  stream.ender = ender;
  try {
    const answer = await fetch("/api/v1/events/stream", { signal: ender.signal, cache: "no-store" });
    if (!answer.ok || !answer.body) throw new Error(String(answer.status));
    stream.failures = 0;
    // Whatever happened while nobody listened.
    if (live.failures) refresh();
    const words = new TextDecoder();
    const reader = answer.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (!words.decode(part.value, { stream: true }).includes("data:")) continue;
      clearTimeout(stream.swarm);
      stream.swarm = setTimeout(refresh, SWARM_MS);
    }
  } catch {
    stream.failures += 1;
  }
  if (stream.ender === ender) stream.ender = null;
  if (ender.signal.aborted || document.hidden) return;
  // The stream ends with the server, too: asking says whether it is there.
  refresh();
  stream.timer = setTimeout(follow, RETRY_MS[Math.min(stream.failures, RETRY_MS.length - 1)]);
}

function rest() {
  clearTimeout(live.timer);
  clearTimeout(stream.timer);
  if (stream.ender) stream.ender.abort();
  stream.ender = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) rest();
  else {
    refresh();
    follow();
  }
});
addEventListener("pagehide", rest);
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    refresh();
    follow();
  }
});
addEventListener("online", () => refresh());
// What a pointer held in its place moves when it leaves.
document.addEventListener("mouseout", (event) => {
  const rows = event.target.closest && event.target.closest("tbody, [data-rows]");
  if (rows && !rows.contains(event.relatedTarget) && rows.querySelector(".gone")) refresh();
});
schedule();
follow();
